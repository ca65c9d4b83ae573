"""Look through the records of one live-data file, with bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from straxflow.livedata.streams import BadStream, iter_plain

HEADER = np.dtype(
    [
        ("time", "<i8"),
        ("length", "<i4"),
        ("dt", "<i2"),
        ("channel", "<i2"),
        ("pulse_length", "<i4"),
        ("record_i", "<i2"),
        ("baseline", "<i2"),
    ]
)
"""The first 24 bytes of a record; n int16 samples follow. Written out here because importing strax costs
seconds; a test compares it with strax.raw_record_dtype."""

MAX_DT_NS = 1000
"""No digitizer of the field samples more slowly than this."""


def record_dtype(samples_per_record: int) -> np.dtype[Any]:
    """Give the packed dtype of a redax record of 24 + 2 n bytes."""
    return np.dtype([*((n, HEADER[n]) for n in HEADER.names or ()), ("data", "<i2", (samples_per_record,))])


@dataclass(frozen=True)
class Window:
    """What the records of one file must respect: times in ns since the run's start, [start, end)."""

    start: int
    end: int
    samples_per_record: int
    max_channel: int
    max_adc: int


@dataclass
class FileScan:
    """What one file holds; `faults` are (found, expected) pairs, empty if it is good."""

    n_records: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    faults: list[tuple[str, str]] = field(default_factory=list)


def scan_file(path: Path, compressor: str, window: Window) -> FileScan:
    """Decompress `path` to its end and check every record against `window`.

    Records are not sorted by time in real files, so order is not checked; but redax writes the fragments
    of a pulse in one go, so those must follow one another.
    """
    scan = FileScan()
    previous: npt.NDArray[Any] | None = None
    try:
        for rows in _rows(iter_plain(path, compressor), window.samples_per_record):
            headers = np.ascontiguousarray(rows[:, : HEADER.itemsize // 2]).view(HEADER).reshape(-1)
            times = headers["time"]
            low, high = int(times.min()), int(times.max())
            scan.first_ns = low if scan.first_ns is None else min(scan.first_ns, low)
            scan.last_ns = high if scan.last_ns is None else max(scan.last_ns, high)
            linked = headers if previous is None else np.concatenate([previous, headers])
            for bad, found, expected in (
                *_header_rules(headers, window),
                *_sample_rules(rows, window),
                *_link_rules(linked, window, starts=previous is None),
            ):
                if bad.any() and not any(e == expected for _, e in scan.faults):
                    first = scan.n_records + int(np.argmax(bad)) - (len(bad) - len(headers))
                    scan.faults.append((f"record {first}: {found}", expected))
            scan.n_records += len(headers)
            previous = headers[-1:].copy()
        if previous is not None and bool(_unfinished(previous, window)[0]):
            scan.faults.append(("the last record's pulse goes on", "all fragments of a pulse"))
    except BadStream as error:
        scan.faults.append((str(error), "one whole compressed stream"))
    return scan


def _rows(pieces: Iterator[bytes], n: int) -> Iterator[npt.NDArray[np.int16]]:
    """Cut the stream into whole records, as rows of int16."""
    size = HEADER.itemsize + 2 * n
    rest = b""
    total = 0
    for piece in pieces:
        total += len(piece)
        data = rest + piece if rest else piece
        whole = len(data) // size * size
        rest = data[whole:]
        if whole:
            yield np.frombuffer(data, "<i2", count=whole // 2).reshape(-1, size // 2)
    if rest:
        raise BadStream(f"{total} plain bytes, which are no whole number of {size}-byte records")


Rule = tuple[npt.NDArray[np.bool_], str, str]


def _header_rules(h: npt.NDArray[Any], window: Window) -> Iterator[Rule]:
    n = window.samples_per_record
    time, dt, channel, length = h["time"], h["dt"], h["channel"], h["length"]
    outside = (time < window.start) | (time >= window.end)
    if outside.any():
        at = int(time[np.argmax(outside)])
        yield outside, f"time {at} ns", f"times in [{window.start}, {window.end}) ns"
    yield (dt < 1) | (dt > MAX_DT_NS), "impossible sample width", f"dt of 1 to {MAX_DT_NS} ns"
    yield (
        (channel < 0) | (channel > window.max_channel),
        "impossible channel",
        (f"channels 0 to {window.max_channel}"),
    )
    left = h["pulse_length"].astype(np.int64) - n * h["record_i"].astype(np.int64)
    yield (
        (h["record_i"] < 0) | (left < 1) | (length != np.minimum(left, n)),
        "inconsistent lengths",
        ("length, pulse_length and record_i that agree"),
    )
    yield (
        (h["baseline"] < 0) | (h["baseline"] > window.max_adc),
        "impossible baseline",
        (f"a baseline of 0 to {window.max_adc} counts"),
    )


def _sample_rules(rows: npt.NDArray[np.int16], window: Window) -> Iterator[Rule]:
    # one pass: as unsigned numbers the negative ones are above the limit too
    samples = rows.view("<u2")[:, HEADER.itemsize // 2 :]
    if samples.size and int(samples.max()) > window.max_adc:
        bad: npt.NDArray[np.bool_] = np.any(samples > window.max_adc, axis=1)
        yield bad, "impossible sample", f"samples of 0 to {window.max_adc}"


def _unfinished(h: npt.NDArray[Any], window: Window) -> npt.NDArray[np.bool_]:
    """Tell which records must be followed by the next fragment of their pulse, in this window."""
    n = window.samples_per_record
    more = (h["record_i"].astype(np.int64) + 1) * n < h["pulse_length"]
    result: npt.NDArray[np.bool_] = more & (h["time"] + n * h["dt"].astype(np.int64) < window.end)
    return result


def _link_rules(h: npt.NDArray[Any], window: Window, starts: bool) -> Iterator[Rule]:
    n = window.samples_per_record
    step = n * h["dt"].astype(np.int64)
    before, after = h[:-1], h[1:]
    follows = (
        (after["record_i"] == before["record_i"] + 1)
        & (after["channel"] == before["channel"])
        & (after["pulse_length"] == before["pulse_length"])
        & (after["time"] == before["time"] + step[:-1])
    )
    # a pulse that began in the window before leaves its first fragments there
    has_head = (h["record_i"] > 0) & (h["time"] - step >= window.start)
    broken = np.zeros(len(h), np.bool_)
    broken[1:] = (_unfinished(before, window) | has_head[1:]) & ~follows
    if starts and len(h):
        broken[0] = has_head[0]
    yield broken, "fragment out of place", "all fragments of a pulse, one after the other"
