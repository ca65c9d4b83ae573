"""Write runs as redax does: files, folders, `_temp` names, empty files, THE_END."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import blosc
import lz4.frame
import numpy as np
import numpy.typing as npt
import zstandard

from straxflow.lab.daq.plan import RunPlan
from straxflow.lab.daq.waveforms import Detector

_FIRST_THREAD = 139_700_000_000_000


@dataclass(frozen=True)
class RunSummary:
    """What was written; records and plain bytes of an overlap count once, bytes on disk all files.

    `rates` are the plain MB/s of each chunk's time.
    """

    number: int
    folder: Path
    records: int
    plain_bytes: int
    disk_bytes: int
    chunks: int
    start: datetime
    end: datetime
    rates: tuple[float, ...]
    seconds: float


def compress(plain: bytes, compressor: str) -> bytes:
    """Compress one file's records as redax (lz4, blosc) or strax (zstd) would."""
    if compressor == "lz4":
        return bytes(
            lz4.frame.compress(plain, block_size=lz4.frame.BLOCKSIZE_MAX256KB, block_linked=True, store_size=False)
        )
    if compressor == "blosc":
        return bytes(blosc.compress(plain, typesize=1, clevel=5, shuffle=blosc.SHUFFLE, cname="lz4"))
    if compressor == "zstd":
        return zstandard.ZstdCompressor(level=3, write_content_size=True).compress(plain)
    raise ValueError(f"compressor {compressor!r} is none of lz4, blosc, zstd")


def write_run(
    folder: Path,
    plan: RunPlan,
    *,
    start: datetime | None = None,
    realtime: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> RunSummary:
    """Take the run `plan` into `folder`/<number:06d>, which must not exist; memory is bounded per chunk.

    `start` is now by default, with `realtime` as fast as the run's own clock, else as fast as possible
    (the end is in the future then, unless `start` is early enough). `progress` is called with the chunks
    written and their total.
    """
    began = time.monotonic()
    start = start or datetime.now(UTC)
    run = folder / f"{plan.number:06d}"
    run.mkdir(parents=True)
    detector = Detector(plan)
    threads = {
        f"{reader}_{_FIRST_THREAD + int(detector.thread) * 4096 + (i << 23) + 256 * j}": (i, j)
        for i, (reader, n) in enumerate(plan.processing_threads.items())
        for j in range(n)
    }
    writers = {name: _Thread(run, name, plan.compressor) for name in threads}
    n_chunks = int(plan.seconds * 1e9) // plan.period_ns + 1
    records, rates = 0, []
    for k in range(n_chunks):
        data, trigger = detector.period(k)
        overlap = data["time"] >= k * plan.period_ns + int(plan.chunk_length_s * 1e9)
        reader = data["channel"] % len(plan.processing_threads)
        if realtime:
            passed = min((k + 1) * plan.period_ns / 1e9, plan.seconds)
            time.sleep(max(began + passed - time.monotonic(), 0))
        for name, (i, j) in threads.items():
            mine = (reader == i) & (trigger % list(plan.processing_threads.values())[i] == j)
            writers[name].write(k, data[mine & ~overlap], data[mine & overlap])
        records += len(data)
        length = min(plan.period_ns / 1e9, plan.seconds - k * plan.period_ns / 1e9)
        rates.append(data.nbytes / 1e6 / length if length > 0 else 0.0)
        if progress:
            progress(k + 1, n_chunks)
    end = run / "THE_END"
    end.mkdir()
    for name in writers:
        (end / name).write_text("...my only friend\n")
    return RunSummary(
        number=plan.number,
        folder=run,
        records=records,
        plain_bytes=records * (24 + plan.fragment_payload_bytes),
        disk_bytes=sum(w.disk_bytes for w in writers.values()),
        chunks=n_chunks,
        start=start,
        end=start + timedelta(seconds=plan.seconds),
        rates=tuple(rates),
        seconds=time.monotonic() - began,
    )


class _Thread:
    """One formatter thread of redax: writes what it has, and later fills the gaps with empty files."""

    def __init__(self, run: Path, name: str, compressor: str) -> None:
        self.run, self.name, self.compressor = run, name, compressor
        self.verified = 0
        self.disk_bytes = 0

    def write(self, k: int, main: npt.NDArray[Any], overlap: npt.NDArray[Any]) -> None:
        if not len(main) and not len(overlap):
            return
        folders = _folders(k)
        if len(main):
            self._put(folders[0], compress(np.ascontiguousarray(main).tobytes(), self.compressor))
        if len(overlap):
            block = compress(np.ascontiguousarray(overlap).tobytes(), self.compressor)
            for folder in folders[1:]:
                self._put(folder, block)
        for missing in (self.run / f for c in range(self.verified, k) for f in _folders(c)):
            missing.mkdir(exist_ok=True)
            if not (missing / self.name).exists():
                (missing / self.name).touch()
        self.verified = k

    def _put(self, folder: str, block: bytes) -> None:
        temp = self.run / f"{folder}_temp"
        temp.mkdir(exist_ok=True)
        (temp / self.name).write_bytes(block)
        final = self.run / folder
        final.mkdir(exist_ok=True)
        (temp / self.name).rename(final / self.name)
        self.disk_bytes += len(block)


def _folders(k: int) -> tuple[str, str, str]:
    return f"{k:06d}", f"{k:06d}_post", f"{k + 1:06d}_pre"
