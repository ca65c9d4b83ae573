"""From redax live data to raw_records: every record once, cut into chunks where the detector is quiet."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import strax

Array = npt.NDArray[Any]

ARTIFICIAL_DEADTIME_CHANNEL = 999


class ArtificialDeadtimeInserted(UserWarning):
    """The data left no quiet time to cut at: records around the cut are dropped."""


@strax.takes_config(
    # none of these is tracked: how the DAQ wrote the data must never change the lineage of raw_records
    strax.Option("daq_input_dir", type=str, track=False, default="", help="The run's live data"),
    strax.Option("run_start_time", type=float, track=False, default=0, help="Start (s since the epoch)"),
    strax.Option("readout_threads", type=dict, track=False, default={}, help="{reader: number of threads}"),
    strax.Option("record_length", type=int, track=False, default=110, help="Samples in a raw_record"),
    strax.Option("max_sampling_time", type=int, track=False, default=10, help="Longest sample (ns)"),
    strax.Option("daq_chunk_duration", type=int, track=False, default=int(5e9), help="Chunk length (ns)"),
    strax.Option("daq_overlap_chunk_duration", type=int, track=False, default=int(5e8), help="Overlap (ns)"),
    strax.Option("daq_compressor", type=str, track=False, default="lz4", help="Compressor of the live data"),
    strax.Option("safe_break", type=int, track=False, default=1000, help="Shortest gap to cut at (ns)"),
)
class DAQReader(strax.Plugin):  # type: ignore[misc]
    """Reads the live data of one run, chunk by chunk, with the overlaps before and after each."""

    __version__ = "1.0.0"
    depends_on = ()
    provides = "raw_records"
    data_kind = "raw_records"
    rechunk_on_save = False
    compressor = "lz4"

    def infer_dtype(self) -> Any:
        """Return the type of redax' records."""
        return strax.raw_record_dtype(self.config["record_length"])

    def setup(self) -> None:
        """Take the run's clock: redax counts from the whole second."""
        self.t0 = int(self.config["run_start_time"]) * 1_000_000_000
        self.folder = Path(self.config["daq_input_dir"])

    def source_finished(self) -> bool:
        """Whether every reader has said that the run is over."""
        return (self.folder / "THE_END").is_dir()

    def is_ready(self, chunk_i: int) -> bool:
        """Whether a chunk is there; the run has ended before processing starts."""
        return self.source_finished() and self._path(chunk_i).is_dir()

    def compute(self, chunk_i: int) -> Any:
        """Return a chunk between two cuts, each in the longest quiet time of the overlap."""
        overlap = self.config["daq_overlap_chunk_duration"]
        start = chunk_i * (self.config["daq_chunk_duration"] + overlap)
        end = start + self.config["daq_chunk_duration"]
        parts = [self._load(self._path(chunk_i), start, end)]
        if chunk_i:
            before = self._load(self._path(chunk_i, "_pre"), start - overlap, start)
            start, _, after_cut = self._cut(before, start - overlap, start)
            parts.insert(0, after_cut)
        after = self._load(self._path(chunk_i, "_post"), end, end + overlap)
        if self._path(chunk_i + 1).is_dir():
            end, before_cut, _ = self._cut(after, end, end + overlap)
            parts.append(before_cut)
        elif len(after):
            # the run ended within this overlap: no other chunk will take what comes after a cut
            end += overlap
            parts.append(after)
        records = np.concatenate(parts)
        records["time"] += self.t0
        return self.chunk(start=self.t0 + start, end=self.t0 + end, data=records)

    def _path(self, chunk_i: int, kind: str = "") -> Path:
        return self.folder / f"{chunk_i:06d}{kind}"

    def _load(self, folder: Path, start: int, end: int) -> Array:
        """Return the records of all threads by time; redax makes empty files for silent threads."""
        files = sorted(f for f in folder.glob("*") if f.stat().st_size) if folder.is_dir() else []
        load = [strax.load_file(str(f), self.config["daq_compressor"], self.dtype) for f in files]
        records: Array = np.concatenate([*load, np.zeros(0, self.dtype)])
        # by channel too: the order must not depend on which thread got which pulse
        records = records[np.lexsort((records["channel"], records["time"]))]
        if len(records) and not start <= records["time"][0] <= records["time"][-1] < end:
            raise ValueError(
                f"{folder} should hold records that start in [{start}, {end}) ns, but has "
                f"{records['time'][0]} to {records['time'][-1]}"
            )
        return records

    def _cut(self, records: Array, start: int, end: int) -> tuple[int, Array, Array]:
        """Return where to cut an overlap and what lies before and after; the same for _post and its copy _pre.

        Without a gap of `safe_break`, the cut is at the end and whatever may cross it is replaced by
        artificial dead time.
        """
        longest = self.config["record_length"] * self.config["max_sampling_time"]
        # records of the chunk before may reach this far into the overlap
        ends = np.maximum.accumulate(np.append(start + longest, _endtime(records)))
        gaps = np.append(records["time"], end) - ends
        i = int(np.argmax(gaps))
        if gaps[i] >= self.config["safe_break"]:
            return int(ends[i] + gaps[i] // 2), records[:i].copy(), records[i:].copy()
        cut = end - self.config["safe_break"]
        dead_from = cut - longest
        warnings.warn(
            f"no {self.config['safe_break']} ns without data in [{start}, {end}) ns: records dropped, "
            f"artificial dead time from {dead_from} to {end} ns",
            ArtificialDeadtimeInserted,
            stacklevel=2,
        )
        kept = records[_endtime(records) <= dead_from]
        return cut, np.append(kept, self._dead_time(dead_from, cut)), self._dead_time(cut, end)

    def _dead_time(self, start: int, end: int) -> Array:
        dt = self.config["max_sampling_time"]
        record: Array = np.zeros(1, self.dtype)
        record["time"], record["dt"], record["length"] = start, dt, (end - start) // dt
        record["channel"] = ARTIFICIAL_DEADTIME_CHANNEL
        return record


def _endtime(records: Array) -> npt.NDArray[np.int64]:
    ends: npt.NDArray[np.int64] = records["time"] + records["length"].astype(np.int64) * records["dt"]
    return ends
