"""Size and speed of strax' compressors, by the size of chunks: what the choice of a compressor can rest on."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.result import Result, Table, judge
from bench.site import Lab
from straxflow.lab.daq import Daq, RunPlan
from straxflow.livedata.records import record_dtype
from straxflow.livedata.streams import iter_plain

COMPRESSORS = ("lz4", "zstd", "blosc")
# the data fill the largest chunk
CHUNKS_MB, QUICK_CHUNKS_MB = (20, 50, 200), (5, 20)
DEMO, NOISE = "demo", "noise"
SAMPLES = 110
CHANNELS, BASELINES, NOISE_COUNTS = 494, (15_950, 16_050), 3.0
Records = npt.NDArray[Any]


@dataclass(frozen=True)
class Figures:
    """What a compressor makes of records: stored bytes by plain bytes, and plain MB/s on one core."""

    ratio: float
    in_mb_s: float
    out_mb_s: float


Found = dict[str, dict[int, dict[str, Figures]]]
"""By the kind of data, the size of chunks in MB, and the compressor."""


def bench(lab: Lab, quick: bool) -> Result:
    """Compress and decompress the same records in chunks of each size, as strax does, in memory."""
    chunks_mb = QUICK_CHUNKS_MB if quick else CHUNKS_MB
    size_mb = chunks_mb[-1]
    data = {DEMO: _demo(lab, size_mb), NOISE: noise(int(size_mb * 1e6))}
    found: Found = {
        kind: {size: {name: _measure(_cut(records, size), name) for name in COMPRESSORS} for size in chunks_mb}
        for kind, records in data.items()
    }
    return Result(
        "compression",
        f"{size_mb} MB of raw_records of {SAMPLES} samples, by strax' own functions, in memory, on one core: the demo "
        f"detector's (pulses on a baseline with noise), and nothing but noise of {NOISE_COUNTS:g} counts (rms) around "
        f"the baselines of {CHANNELS} channels, which a detector without zero suppression gives. MB/s are plain MB by "
        "seconds of CPU",
        [
            judge(f"{kind}: stored size with {name}, by plain size", figures.ratio, None, "")
            for kind in data
            for name, figures in found[kind][size_mb].items()
        ],
        [_table(kind, by_size) for kind, by_size in found.items()],
        [
            *(say(kind, by_size[size_mb]) for kind, by_size in found.items()),
            say_chunks(found),
            say_default(found[DEMO][size_mb]),
        ],
    )


def noise(n_bytes: int) -> Records:
    """Records with nothing but a digitizer's noise, one channel after the other."""
    dtype = record_dtype(SAMPLES)
    rng = np.random.default_rng(1)
    records: Records = np.zeros(n_bytes // dtype.itemsize, dtype)
    n = np.arange(len(records))
    records["channel"], records["time"] = n % CHANNELS, n // CHANNELS * 10 * SAMPLES
    records["dt"], records["length"], records["pulse_length"] = 10, SAMPLES, SAMPLES
    baselines = rng.integers(*BASELINES, CHANNELS)[records["channel"]]
    counts = rng.standard_normal((len(records), SAMPLES), np.float32) * NOISE_COUNTS + baselines[:, None]
    records["data"] = counts.round()
    return records


def say(kind: str, found: Mapping[str, Figures]) -> str:
    """Which compressor is the fastest, and which makes the smallest files, by what."""
    smallest = min(found, key=lambda name: found[name].ratio)
    # as long as one core would be at it, to write once and read once
    fastest = min(found, key=lambda name: 1 / found[name].in_mb_s + 1 / found[name].out_mb_s)
    small, fast = found[smallest], found[fastest]
    if smallest == fastest:
        return f"{kind}: {fastest} is the fastest and makes the smallest files."
    return (
        f"{kind}: {smallest} makes the smallest files ({small.ratio:.2f} of the plain size); {fastest} is the fastest, "
        f"with files {fast.ratio / small.ratio:.2f} times as large, written {fast.in_mb_s / small.in_mb_s:.1f} and "
        f"read {fast.out_mb_s / small.out_mb_s:.1f} times as fast."
    )


def say_chunks(found: Found) -> str:
    """How much the size of chunks changes the size of what is stored."""
    spreads = [
        max(ratios) / min(ratios) - 1
        for by_size in found.values()
        for name in COMPRESSORS
        for ratios in [[by_size[size][name].ratio for size in by_size]]
    ]
    return (
        f"The size of chunks changes the stored size by at most {100 * max(spreads):.1f} %: memory and the number of "
        "files decide about it."
    )


def say_default(found: Mapping[str, Figures]) -> str:
    """What is the default, and what another choice would give and cost."""
    from straxflow.detectors.demo.reader import DAQReader

    smallest = min(found, key=lambda name: found[name].ratio)
    default, small = found[DAQReader.compressor], found[smallest]
    return (
        "straxflow's config sets neither; the plugins' own choice stands (strax' default is blosc and 200 MB). The "
        f"demo detector stores raw_records with {DAQReader.compressor}, in chunks as the DAQ cut them; {smallest} "
        f"saves {100 * (1 - small.ratio / default.ratio):.0f} % of the disk, for "
        f"{1e3 / small.in_mb_s - 1e3 / default.in_mb_s:.1f} s more of a core for each GB written. Where disks or the "
        "network are dearer than cores, the demo context's `compressors` names it for a data type."
    )


def _demo(lab: Lab, size_mb: float) -> Records:
    """The records of the demo detector's DAQ, without the copies in overlaps, as its reader orders them."""
    daq = Daq(lab.folder / "daq_compression", None, "demo-daq")
    # the overlaps, a tenth of the run, are left out
    daq.take(RunPlan(1, size_mb=1.2 * size_mb))
    files = sorted(file for file in daq.folder.glob("000001/[0-9]*/*") if file.parent.name.isdigit())
    dtype = record_dtype(SAMPLES)
    records = np.frombuffer(b"".join(block for file in files for block in iter_plain(file, "lz4")), dtype)
    ordered: Records = records[np.lexsort((records["channel"], records["time"]))]
    return ordered[: int(size_mb * 1e6) // dtype.itemsize]


def _cut(records: Records, size_mb: float) -> list[Records]:
    step = int(size_mb * 1e6) // records.itemsize
    return [records[i : i + step] for i in range(0, len(records), step)]


def _measure(chunks: Sequence[Records], name: str) -> Figures:
    """Each chunk by itself, as each has a file of its own."""
    # here, since it takes seconds, and no other bench needs it
    import strax

    plain = stored = 0
    seconds = [0.0, 0.0]
    for chunk in chunks:
        file = io.BytesIO()
        seconds[0] += _timed(strax.save_file, file, chunk, name)
        stored += file.tell()
        file.seek(0)
        seconds[1] += _timed(strax.load_file, file, name, chunk.dtype)
        plain += chunk.nbytes
    return Figures(stored / plain, plain / 1e6 / seconds[0], plain / 1e6 / seconds[1])


def _timed(work: Callable[..., object], *arguments: object) -> float:
    began = time.process_time()
    work(*arguments)
    return time.process_time() - began


def _table(kind: str, by_size: Mapping[int, Mapping[str, Figures]]) -> Table:
    rows = [
        [f"{name}, chunks of {size} MB", f"{one.ratio:.3f}", f"{one.in_mb_s:.0f}", f"{one.out_mb_s:.0f}"]
        for name in COMPRESSORS
        for size, found in by_size.items()
        for one in [found[name]]
    ]
    return Table(kind, ["case", "stored / plain", "MB/s in", "MB/s out"], rows)
