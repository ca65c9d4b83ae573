"""The check itself: layout, twins, streams, records, run length, all problems at once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from straxflow.errors import ConfigError, NotComplete
from straxflow.livedata.expectation import LiveExpectation
from straxflow.livedata.layout import THE_END, Layout, check_layout, drop_late_chunks, read_layout, signed_off
from straxflow.livedata.problems import LiveDataDamaged, Problem
from straxflow.livedata.records import FileScan, Window, record_dtype
from straxflow.livedata.scans import Scans
from straxflow.livedata.streams import COMPRESSORS, PIECE


@dataclass(frozen=True)
class LiveReport:
    """What whole live data hold.

    `n_records` counts each record once, an overlap's by its `_post`: strax' DAQReader gives just as many,
    unless it finds no quiet microsecond in an overlap and reports artificial dead time, or the run ends
    with a full overlap that no chunk follows. `bytes_on_disk` counts all files, `bytes_plain` the
    decompressed records, once each. Times are ns since the run's start; None if there is no record.
    """

    run: str
    n_chunks: int
    n_files: int
    n_records: int
    bytes_on_disk: int
    bytes_plain: int
    first_ns: int | None
    last_ns: int | None
    seconds: float
    oddities: tuple[str, ...]


class _Job(NamedTuple):
    path: str
    window: Window
    twin: str | None


def is_complete(folder: Path, processing_threads: Mapping[str, int] | None = None) -> bool:
    """Tell whether a run is fully written: THE_END lists the threads, and no file is in a `_temp` folder.

    Without `processing_threads`, every thread that wrote a file must be listed. A folder that does not
    exist is not complete; an unreadable one raises OSError.
    """
    try:
        layout = read_layout(folder)
    except FileNotFoundError:
        return False
    if not layout.end or layout.temp_files:
        return False
    if processing_threads is not None:
        return signed_off(layout, processing_threads)
    groups = (*layout.main.values(), *layout.pre.values(), *layout.post.values())
    return set().union(*groups) <= layout.end


def check_live_data(
    folder: Path, expected: LiveExpectation, workers: int = 1, scans: Scans | None = None
) -> LiveReport:
    """Read all live data of a run and compare them with the run document and with each other.

    `folder` is the run's own folder. With `workers` threads, files are read side by side; memory is some
    40 MB for each, blosc files excepted (those are one block each). What was looked through in `scans` since
    its last change is not read again. What the format cannot show: an altered sample that is still a possible
    one, in a stream that still decompresses.

    Raises NotComplete while readers have not signed off, and LiveDataDamaged with every problem found.
    """
    began = time.monotonic()
    if expected.compressor not in COMPRESSORS:
        raise ConfigError(
            f"run {expected.run}: daq_config.compressor is {expected.compressor!r}; known are {', '.join(COMPRESSORS)}"
        )
    if not folder.is_dir():
        raise NotComplete(f"run {expected.run}: there is no folder {folder}")
    layout = read_layout(folder)
    if not signed_off(layout, expected.processing_threads):
        wanted = ", ".join(f"{n} of {reader}" for reader, n in expected.processing_threads.items())
        raise NotComplete(
            f"run {expected.run}: {folder / THE_END} lists {len(layout.end)} threads, expected {wanted}: "
            "the run is still being written, or a reader died"
        )
    least, most = _chunk_limits(expected)
    late = drop_late_chunks(layout, most)
    problems, oddities = check_layout(layout, expected.processing_threads)
    problems += late
    jobs = list(_jobs(layout, expected))
    with scans or Scans(folder, expected, workers) as at_work:
        results = list(at_work.pool.map(partial(_check_file, folder, at_work), jobs))
    scanned = [scan for scan, _ in results]
    for _, found in results:
        problems += found
    n_records = sum(scan.n_records for scan in scanned)
    first = min((s.first_ns for s in scanned if s.first_ns is not None), default=None)
    last = max((s.last_ns for s in scanned if s.last_ns is not None), default=None)
    if layout.n_chunks < least:
        wanted = f"{least}" if least == most else f"{least} to {most}"
        seconds = (expected.end - expected.start).total_seconds()
        problems.append(Problem(".", f"{layout.n_chunks} chunks", f"{wanted} in a run of {seconds:.1f} s"))
    if problems:
        raise LiveDataDamaged(expected.run, str(folder), problems)

    silence = (expected.end - expected.start).total_seconds() - (last or 0) / 1e9
    if silence > expected.length_tolerance_s:
        oddities.append(f"no record in the last {silence:.1f} s of the run")
    sizes = [s for group in (layout.main, layout.pre, layout.post) for f in group.values() for s in f.values()]
    return LiveReport(
        run=expected.run,
        n_chunks=layout.n_chunks,
        n_files=len(sizes) + len(layout.end),
        n_records=n_records,
        bytes_on_disk=sum(sizes),
        bytes_plain=n_records * record_dtype(expected.samples_per_record).itemsize,
        first_ns=first,
        last_ns=last,
        seconds=time.monotonic() - began,
        oddities=tuple(oddities),
    )


def _jobs(layout: Layout, expected: LiveExpectation) -> Iterable[_Job]:
    """List the files to decompress: of twins only the `_post`, the `_pre` is compared with it."""
    for k, files in sorted(layout.main.items()):
        for thread in files:
            yield _Job(f"{k:06d}/{thread}", expected.window(k, overlap=False), None)
    for k, files in sorted(layout.post.items()):
        for thread in files:
            twin = f"{k + 1:06d}_pre/{thread}" if thread in layout.pre.get(k + 1, {}) else None
            yield _Job(f"{k:06d}_post/{thread}", expected.window(k, overlap=True), twin)


def _check_file(folder: Path, scans: Scans, job: _Job) -> tuple[FileScan, list[Problem]]:
    try:
        scan = scans.result(job.path, job.window)
        problems = [Problem(job.path, found, wanted) for found, wanted in scan.faults]
        if job.twin is not None and not _same_bytes(folder / job.path, folder / job.twin):
            problems.append(Problem(job.twin, f"differs from {job.path}", "byte copies of each other"))
            # say which of the two is the bad one, if that can be told
            other = scans.result(job.twin, job.window)
            problems += [Problem(job.twin, found, wanted) for found, wanted in other.faults]
    except OSError as error:
        return FileScan(), [Problem(job.path, f"cannot be read ({error})", "a readable file")]
    return scan, problems


def _same_bytes(a: Path, b: Path) -> bool:
    with a.open("rb") as file_a, b.open("rb") as file_b:
        while True:
            piece = file_a.read(PIECE)
            if piece != file_b.read(PIECE):
                return False
            if not piece:
                return True


def _chunk_limits(expected: LiveExpectation) -> tuple[int, int]:
    """Give the least and the greatest number of chunks that the run's length allows."""
    seconds = (expected.end - expected.start).total_seconds()
    tolerance, period = expected.length_tolerance_s, expected.period_ns / 1e9
    return int(max(seconds - tolerance, 0) / period) + 1, int(max(seconds + tolerance, 0) / period) + 1
