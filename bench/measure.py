"""Measuring: one call at a time, case and baseline in turn."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from straxflow.owner import process_fields

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Sample:
    """One measurement: wall clock and CPU of the process tree, s, and of the command's own process alone; peak memory
    of its largest process, MB, 0 if it is no process of its own."""

    wall: float
    cpu: float
    own_cpu: float = 0.0
    peak_mb: float = 0.0

    def __add__(self, other: Sample) -> Sample:
        """One after the other."""
        peak_mb = max(self.peak_mb, other.peak_mb)
        return Sample(self.wall + other.wall, self.cpu + other.cpu, self.own_cpu + other.own_cpu, peak_mb)


@dataclass
class Series:
    """The measurements of one case."""

    name: str
    samples: list[Sample] = field(default_factory=list)

    def median(self, what: str = "wall") -> float:
        """Median over the repetitions."""
        return statistics.median(getattr(s, what) for s in self.samples)

    def spread(self, what: str = "wall") -> tuple[float, float]:
        """Smallest and largest."""
        values = [getattr(s, what) for s in self.samples]
        return min(values), max(values)

    def show(self, what: str = "wall") -> str:
        """Median with smallest and largest, s."""
        low, high = self.spread(what)
        return f"{self.median(what):.2f} ({low:.2f} to {high:.2f})"


def ratios(case: Series, baseline: Series, what: str = "wall") -> list[float]:
    """Ratios of repetitions that were measured one after the other."""
    pairs = zip(case.samples, baseline.samples, strict=True)
    return [getattr(a, what) / max(getattr(b, what), 1e-3) for a, b in pairs]


def ratio_of(case: Series, baseline: Series, what: str = "wall") -> float:
    """Their median."""
    return statistics.median(ratios(case, baseline, what))


def a_run(invocations: Sequence[Sample], idle: Sample, count: int) -> Sample:
    """What each of so many runs took, start and end apart: without what as many idle invocations take."""
    taken = (
        sum(getattr(one, what) - getattr(idle, what) for one in invocations) for what in ("wall", "cpu", "own_cpu")
    )
    return Sample(*(seconds / count for seconds in taken))


def measure(work: Callable[[], object]) -> Sample:
    """Time a call; CPU of this process, of the children that it waited for, and of what it left in the background."""
    with _background() as left:
        before = _cpu()
        began = time.perf_counter()
        work()
        wall = time.perf_counter() - began
        return Sample(wall, _cpu() - before + left())


def run(
    argv: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, log: Path | None = None
) -> Sample:
    """Time a command with all its descendants, those that went to the background too.

    Raises:
        RuntimeError: if it fails, with the end of its output.
    """
    log = log or Path(os.devnull)
    with _background() as left:
        began = time.perf_counter()
        with log.open("ab") as output:
            process = subprocess.Popen(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        wall = time.perf_counter() - began
        own_cpu = cpu_of(process.pid, children=False)
        _, status, usage = os.wait4(process.pid, 0)
        background = left()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        end = log.read_text(errors="replace")[-2000:] if log.is_file() else ""
        raise RuntimeError(f"{argv[0]} failed, exit {process.returncode}: {end}")
    return Sample(wall, usage.ru_utime + usage.ru_stime + background, own_cpu, usage.ru_maxrss / 1024)


_PR_SET_CHILD_SUBREAPER = 36
_orphans = set[int]()


@contextlib.contextmanager
def _background() -> Iterator[Callable[[], float]]:
    """Yields what gives the CPU of the ssh that went to the background within the block, s.

    It holds a shared connection: it deciphers all that comes, and its parent has ended long before it.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for pid in [*_orphans]:
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                continue
        _orphans.discard(pid)
    known = _adopted()
    yield lambda: sum(cpu_of(pid) for pid in _adopted() - known)
    _orphans.update(_adopted() - known)


def _adopted() -> set[int]:
    """The ssh processes among the children of this process."""
    lists = Path("/proc/self/task").glob("*/children")
    children = (pid for one in lists for pid in one.read_text(encoding="ascii").split())
    return {int(pid) for pid in children if _command(pid) == b"ssh\n"}


def _command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/comm").read_bytes()
    except OSError:
        return b""


def cpu_of(pid: int, *, children: bool = True) -> float:
    """CPU that a process has used so far, s; with `children` also those that it waited for."""
    return sum(int(ticks) for ticks in process_fields(pid)[11 : 15 if children else 13]) / _TICKS


def idle_cores() -> float:
    """Seconds that the cores of this machine had nothing to do, or nothing but to wait for a disk, since its start."""
    idle, waiting = map(int, Path("/proc/stat").read_text().split()[4:6])
    return (idle + waiting) / _TICKS


def cpu_of_processes(word: str) -> float:
    """CPU seconds of all other processes with this word in their command lines, and of the children they waited for."""
    seconds = 0.0
    for folder in Path("/proc").glob("[0-9]*"):
        # processes may end meanwhile; the bench has waited for what it measured, and may have the word in its --folder
        with contextlib.suppress(OSError):
            if int(folder.name) != os.getpid() and word.encode() in (folder / "cmdline").read_bytes():
                seconds += cpu_of(int(folder.name))
    return seconds


def in_turn(cases: Mapping[str, Callable[[int], Sample]], repetitions: int, first: int = 0) -> dict[str, Series]:
    """Measure all cases, repetition by repetition (from the `first` one on), each time in the other order, on settled
    disks."""
    series = {name: Series(name) for name in cases}
    for i in range(first, first + repetitions):
        for name in cases if i % 2 == 0 else reversed(list(cases)):
            os.sync()
            series[name].samples.append(cases[name](i))
    return series


def _cpu() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in usages)
