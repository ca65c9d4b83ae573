"""Digests by straxflow against `xxhsum` and `sha256sum`, from memory; and verifying, against the disk's own reading."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.measure import Sample, Series, in_turn, measure, run
from bench.result import Judged, Result, Table, compare, judge
from bench.site import Lab
from straxflow.digests import THREADS as DEFAULT_THREADS
from straxflow.digests import Manifest, hash_tree, verify_tree

GOAL, GOAL_MB = 1.05, 100.0
# files as strax stores them
COUNT, SIZE_MB = 16, 64
QUICK_COUNT, QUICK_SIZE_MB = 8, 16
# as a DAQ with many threads and short chunks leaves them
SMALL_COUNT, QUICK_SMALL_COUNT, SMALL_MB = 5_000, 1_000, 0.01
THREADS = (1, 2, 4)
REPETITIONS, QUICK_REPETITIONS = 3, 2
PLAIN = {"xxh128": ("xxhsum", "-q", "-H2"), "sha256": ("sha256sum",)}
DIRECT = 'printf "%s\\0" "$1"/* | xargs -0 -P "$2" -I {} dd if={} of=/dev/null iflag=direct bs=4M status=none'
# its own process: the peak is that of all its life
PEAK = """
import re, sys
from pathlib import Path
from straxflow.digests import Manifest, hash_tree, verify_tree
folder = Path(sys.argv[1])
assert not verify_tree(folder, hash_tree(folder))
print(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def bench(lab: Lab, quick: bool) -> Result:
    """Measure from memory, then from the disk, and the peak of memory."""
    count, size_mb = (QUICK_COUNT, QUICK_SIZE_MB) if quick else (COUNT, SIZE_MB)
    small_count = QUICK_SMALL_COUNT if quick else SMALL_COUNT
    repetitions = QUICK_REPETITIONS if quick else REPETITIONS
    archive, small, single = (lab.folder / name for name in ("archive", "small", "single"))
    _fill(archive, count, size_mb)
    _fill(small, small_count, SMALL_MB)
    _fill(single, 1, SMALL_MB)
    gigabytes, small_gigabytes = count * size_mb / 1e3, small_count * SMALL_MB / 1e3
    many = f"xxh128 of {small_count:,} files of {SMALL_MB * 1e3:g} kB"
    xxh128, sha256, of_small = (
        in_turn(_warm(folder, algorithm), repetitions)
        for folder, algorithm in ((archive, "xxh128"), (archive, "sha256"), (small, "xxh128"))
    )
    cold = in_turn(_cold(archive, hash_tree(archive)), repetitions)
    peaks = {name: peak_mb(of) for name, of in (("one small file", single), (f"{gigabytes:.1f} GB", archive))}
    for folder in (archive, small, single):
        shutil.rmtree(folder)
    return Result(
        "hashing",
        f"{count} files of {size_mb} MB; straxflow.digests.hash_tree of files in memory, and verify_tree, which "
        "flushes each file, drops it from the page cache and reads it; the disk's own reading is a dd for each file, "
        "4 MB at a time, past the page cache, as many at once as verify_tree has threads",
        [
            _by_plain("xxh128", xxh128, "xxh128"),
            _by_plain("sha256", sha256, "sha256"),
            _by_plain(many, of_small, "xxh128"),
            *(_by_disk(cold, threads) for threads in THREADS),
            *(judge(f"memory of verifying {name}", peak, GOAL_MB, " MB") for name, peak in peaks.items()),
        ],
        [
            speeds("xxh128, from memory", xxh128, gigabytes),
            speeds("sha256, from memory", sha256, gigabytes),
            speeds(f"{many}, from memory", of_small, small_gigabytes),
            speeds("xxh128, from the disk", cold, gigabytes),
        ],
        [
            "A machine's host may keep in its own memory what a guest's disk holds: reading again is then faster than "
            "any disk, for dd and for verify_tree alike."
        ],
    )


def _by_plain(what: str, found: Mapping[str, Series], algorithm: str) -> Judged:
    plain = PLAIN[algorithm][0]
    return compare(f"{what} from memory, one thread, by {plain}", found[_ours(1, "hash_tree")], found[plain], None)


def _by_disk(found: Mapping[str, Series], threads: int) -> Judged:
    """The goal is for as many threads as straxflow takes."""
    goal = GOAL if threads == DEFAULT_THREADS else None
    what = f"{_ours(threads)}, from the disk, by {_dd(threads)}"
    return compare(what, found[_ours(threads)], found[_dd(threads)], goal)


def speeds(title: str, found: Mapping[str, Series], gigabytes: float) -> Table:
    """How fast so much data went, by wall clock and by CPU."""
    rows = [
        [name, one.show(), f"{gigabytes / one.median():.2f}", f"{gigabytes / max(one.median('cpu'), 1e-3):.2f}"]
        for name, one in found.items()
    ]
    return Table(title, ["case", "wall, s: median (range)", "GB/s", "GB per CPU s"], rows)


def peak_mb(folder: Path) -> float:
    """The most memory that a process needs which does nothing but verify a folder, MB."""
    done = subprocess.run([sys.executable, "-c", PEAK, str(folder)], capture_output=True, text=True, check=True)
    return int(done.stdout) * 1024 / 1e6


def _ours(threads: int, function: str = "verify_tree") -> str:
    return f"{function}, {threads} thread{'s' if threads > 1 else ''}"


def _warm(folder: Path, algorithm: str) -> dict[str, Callable[[int], Sample]]:
    def ours(threads: int) -> Callable[[int], Sample]:
        return lambda _: measure(lambda: hash_tree(folder, algorithm, threads=threads))

    plain = PLAIN[algorithm]
    files = sorted(map(str, folder.iterdir()))
    return {_ours(n, "hash_tree"): ours(n) for n in THREADS} | {plain[0]: lambda _: run([*plain, *files])}


def _cold(folder: Path, manifest: Manifest) -> dict[str, Callable[[int], Sample]]:
    def verified(threads: int) -> Callable[[int], Sample]:
        return lambda _: measure(lambda: _verify(folder, manifest, threads))

    def read(at_once: int) -> Callable[[int], Sample]:
        return lambda _: run(["bash", "-ec", DIRECT, "dd", str(folder), str(at_once)])

    cases: dict[str, Callable[[int], Sample]] = {}
    for n in THREADS:
        cases |= {_ours(n): verified(n), _dd(n): read(n)}
    return cases


def _dd(at_once: int) -> str:
    return f"dd iflag=direct, {at_once} at once"


def _verify(folder: Path, manifest: Manifest, threads: int) -> None:
    differences = verify_tree(folder, manifest, threads=threads)
    assert not differences, differences


def _fill(folder: Path, count: int, size_mb: float) -> None:
    folder.mkdir()
    for i in range(count):
        (folder / f"raw_records-{i:06d}").write_bytes(os.urandom(int(size_mb * 1e6)))
