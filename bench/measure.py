"""Measuring: one call at a time, case and baseline in turn."""

from __future__ import annotations

import contextlib
import os
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from straxflow.owner import process_fields

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Sample:
    """One measurement: wall clock and CPU of the process tree, s, and of the command's own process alone."""

    wall: float
    cpu: float
    own_cpu: float = 0.0

    def __add__(self, other: Sample) -> Sample:
        """One after the other."""
        return Sample(self.wall + other.wall, self.cpu + other.cpu, self.own_cpu + other.own_cpu)


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


def ratio_of(case: Series, baseline: Series, what: str = "wall") -> float:
    """Median of the ratios of repetitions that were measured one after the other."""
    pairs = zip(case.samples, baseline.samples, strict=True)
    return statistics.median(getattr(a, what) / max(getattr(b, what), 1e-3) for a, b in pairs)


def measure(work: Callable[[], object]) -> Sample:
    """Time a call; CPU of this process and of the children that it waited for."""
    before = _cpu()
    began = time.perf_counter()
    work()
    return Sample(time.perf_counter() - began, _cpu() - before)


def run(
    argv: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, log: Path | None = None
) -> Sample:
    """Time a command with all its descendants that were waited for.

    Raises:
        RuntimeError: if it fails, with the end of its output.
    """
    log = log or Path(os.devnull)
    began = time.perf_counter()
    with log.open("ab") as output:
        process = subprocess.Popen(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    wall = time.perf_counter() - began
    own_cpu = cpu_of(process.pid, children=False)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        end = log.read_text(errors="replace")[-2000:] if log.is_file() else ""
        raise RuntimeError(f"{argv[0]} failed, exit {process.returncode}: {end}")
    return Sample(wall, usage.ru_utime + usage.ru_stime, own_cpu)


def cpu_of(pid: int, *, children: bool = True) -> float:
    """CPU that a process has used so far, s; with `children` also those that it waited for."""
    return sum(int(ticks) for ticks in process_fields(pid)[11 : 15 if children else 13]) / _TICKS


def idle_cores() -> float:
    """Seconds that the cores of this machine had nothing to do, or nothing but to wait for a disk, since its start."""
    idle, waiting = map(int, Path("/proc/stat").read_text().split()[4:6])
    return (idle + waiting) / _TICKS


def cpu_of_processes(word: str) -> float:
    """CPU seconds of all processes with this word in their command lines, and of the children they waited for."""
    seconds = 0.0
    for folder in Path("/proc").glob("[0-9]*"):
        # processes may end meanwhile
        with contextlib.suppress(OSError):
            if word.encode() in (folder / "cmdline").read_bytes():
                seconds += cpu_of(int(folder.name))
    return seconds


def in_turn(cases: Mapping[str, Callable[[int], Sample]], repetitions: int) -> dict[str, Series]:
    """Measure all cases, repetition by repetition, each time in the other order, on settled disks."""
    series = {name: Series(name) for name in cases}
    for i in range(repetitions):
        for name in cases if i % 2 == 0 else reversed(list(cases)):
            os.sync()
            series[name].samples.append(cases[name](i))
    return series


def _cpu() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in usages)
