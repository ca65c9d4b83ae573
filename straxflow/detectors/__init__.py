"""Detectors as `module:function` contexts: called with run facts, source and output folder, and keywords."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any


def run_start(run: Mapping[str, Any]) -> datetime:
    """Return the run's start as an aware datetime; facts give it in ISO format, UTC if no zone is named."""
    start = datetime.fromisoformat(str(run["start"]).replace("Z", "+00:00"))
    return start if start.tzinfo else start.replace(tzinfo=timezone.utc)  # noqa: UP017 (Python 3.10 has no UTC)


def live_folder(run: Mapping[str, Any], source: str | None) -> Path | None:
    """Return the run's live data in the source folder, None if the source is stored data (or no data at all)."""
    folder = Path(source) / str(run["run"]) if source else None
    return folder if folder and folder.is_dir() else None


def reader_options(run: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the options that the DAQ readers of the strax family (straxen, amstrax, demo) have in common."""
    daq = run["daq_config"]
    return {
        "daq_input_dir": str(folder),
        "run_start_time": run_start(run).timestamp(),
        "readout_threads": daq["processing_threads"],
        "record_length": int(daq["strax_fragment_payload_bytes"]) // 2,
        "daq_chunk_duration": round(daq["strax_chunk_length"] * 1e9),
        "daq_overlap_chunk_duration": round(daq["strax_chunk_overlap"] * 1e9),
        "daq_compressor": daq.get("compressor", "lz4"),
    }
