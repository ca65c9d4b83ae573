"""Many small runs: the whole chain by one invocation, against a loop with one fresh Python process for each run."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.bare import loop
from bench.measure import Sample, Series, cpu_of_processes, idle_cores
from bench.result import Judged, Result, Table, compare, judge, times
from bench.site import Lab, Site, job_seconds, make_site, step_seconds
from straxflow.attempts import all_of
from straxflow.config.load import ROOT
from straxflow.lab.daq import Daq, RunPlan
from straxflow.receipts import Processed

RUNS, QUICK_RUNS = 100, 10
SIZE_MB = 5.0
GOAL = 0.2
IDLE = 0.15
"""With less than this part of all cores idle, more work at once would give nothing."""
Documents = Mapping[str, dict[str, Any]]


@dataclass(frozen=True)
class Kind:
    """What is made of each run: data types by a context, in one process that may be any Python."""

    name: str
    context: str
    targets: list[str]
    in_loop: int
    """Runs that the loop is measured with."""
    python: str = sys.executable
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def product(self) -> str:
        """The one product that straxflow makes of it."""
        return self.targets[-1]

    def settings(self, count: int) -> dict[str, Any]:
        """The site's configuration."""
        strax = {"python": [self.python], "environment": self.environment, "context": self.context, "max_gap_s": 2}
        return {
            "claim": {"max_runs": count},
            "strax": strax,
            "products": {self.product: {"from": "live", "targets": self.targets}},
        }


DEMO = Kind("demo", "straxflow.detectors.demo:context", ["raw_records"], 12)
QUICK_DEMO = replace(DEMO, in_loop=3)
# not peak_basics: how many neighbours compete (n_competing) depends on where chunks end
AMSTRAX = Kind(
    "amstrax",
    "straxflow.detectors.amstrax:context",
    ["raw_records", "peaks"],
    4,
    str(ROOT / ".venv-amstrax" / "bin" / "python"),
    {"GIT_PYTHON_REFRESH": "quiet"},
)


def bench(lab: Lab, quick: bool) -> Result:
    """Measure both, see that they made the same, and say where the time of a small run goes."""
    count = QUICK_RUNS if quick else RUNS
    daq = Daq(lab.folder / "daq_many", None, "demo-daq")
    documents = {}
    for number in range(1, count + 1):
        documents[f"{number:06d}"], summary = daq.take(RunPlan(number, size_mb=SIZE_MB, seed=number))
    kinds = [QUICK_DEMO] if quick else [AMSTRAX, DEMO]
    measured = [_Measured(lab, kind, daq.folder, documents) for kind in kinds]
    return Result(
        "small runs",
        f"{count} runs of {summary.plain_bytes / 1e6:.1f} MB of records to stored and registered data, by one "
        "`snakemake --profile local`, against bench/bare_loop.sh: rsync --fsync, a fresh Python with strax, xxhsum, "
        "cp and sync for each run. The loop is measured with some runs and scaled to all",
        [judged for one in measured for judged in one.judged()],
        [table for one in measured for table in one.tables()],
        [note for one in measured for note in one.notes()],
    )


class _Measured:
    """Both ways of one kind, one after the other on settled disks."""

    def __init__(self, lab: Lab, kind: Kind, daq: Path, documents: Documents) -> None:
        self.kind, self.count = kind, len(documents)
        some = dict(list(documents.items())[: kind.in_loop])
        # what is compiled and cached at the first use is not to be measured
        _loop(lab, kind, daq, dict(list(some.items())[:1]), "warm")
        _remove(lab, "small_loop_warm")
        # the first of the two leaves nothing behind that the second could use
        os.sync()
        self.fresh = _loop(lab, kind, daq, some, "measured")
        site = make_site(lab, f"small_runs_{kind.name}", daq, kind.settings(self.count))
        lab.runs(site.name).insert_many([dict(one) for one in documents.values()])
        os.sync()
        idle_s, others_cpu = idle_cores(), cpu_of_processes(str(lab.folder))
        self.whole = site.snakemake()
        self.idle_s = idle_cores() - idle_s
        self.others_cpu = cpu_of_processes(str(lab.folder)) - others_cpu
        self.compared = check_same(site.config.store.folder, lab.folder / "small_loop_measured" / "store", list(some))
        self.idle = site.snakemake()
        self.cpu = cpu_parts(site, kind.product, list(documents), self.whole, self.idle)
        self.jobs = _jobs(site, kind, self.count)
        site.remove()
        _remove(lab, "small_loop_measured")
        self.ours = Series(f"straxflow, {self.count} runs", [self.whole])
        self.factor = self.count / kind.in_loop
        self.loop = Series(
            f"loop of {self.count} fresh processes: that of {kind.in_loop} runs, times {self.factor:.3g}",
            [scaled(self.fresh, self.factor)],
        )

    def judged(self) -> list[Judged]:
        """The figures, the ratio with its goal first."""
        what, last = self.kind.name, self.kind.targets[-1]
        wall, cpu = self.whole.wall - self.idle.wall, self.whole.cpu - self.idle.cpu
        return [
            compare(
                f"{self.count} small runs, {what} to {last}, by as many fresh processes", self.ours, self.loop, GOAL
            ),
            judge(f"{what}: CPU by the loop's", self.whole.cpu / self.loop.samples[0].cpu, None, ""),
            judge(f"{what}: wall clock a small run (start and end apart)", wall / self.count, None, " s"),
            judge(f"{what}: CPU a small run (start and end apart)", cpu / self.count, None, " s"),
        ]

    def tables(self) -> list[Table]:
        """The times, and where they go."""
        name = self.kind.name
        return [
            times(f"All runs, {name}", [self.ours, self.loop]),
            Table(
                f"CPU of straxflow a run, start and end apart, {name}",
                ["part", "s"],
                [[k, f"{v:.3f}"] for k, v in self.cpu.items()],
            ),
            self.jobs,
        ]

    def notes(self) -> list[str]:
        """In words."""
        name, count = self.kind.name, self.count
        cores, unused = os.cpu_count() or 1, self.idle_s / self.whole.wall
        return [
            f"{name}: the strax data files of {self.compared} in both ways are bit-identical (metadata tell times).",
            f"{name}: a run takes {(self.whole.cpu + self.others_cpu) / count:.2f} CPU s, of which "
            f"{self.others_cpu / count:.2f} are the run database's and the DAQ's side of ssh; {unused:.1f} of the "
            f"machine's {cores} cores were idle, so it is limited by "
            f"{'waiting (disk, scheduling)' if unused > IDLE * cores else 'the CPU'}. Of straxflow's own, start and "
            f"end apart: {shares(self.cpu)}.",
            f"{name}: the loop takes {self.fresh.wall / self.kind.in_loop:.2f} s and "
            f"{self.fresh.cpu / self.kind.in_loop:.2f} CPU s a run, nearly all of it the start of Python with strax, "
            "and what strax compiles in each process; it claims, checks, reads back and registers nothing.",
        ]


def scaled(sample: Sample, factor: float) -> Sample:
    """What so many times the work would take, if each part takes as long as those that were measured."""
    return Sample(sample.wall * factor, sample.cpu * factor, sample.own_cpu * factor, sample.peak_mb)


def check_same(one: Path, other: Path, runs: list[str]) -> str:
    """Compare the data files of some runs in two stores; what was compared, in words.

    Raises:
        RuntimeError: if they differ, or if there are none.
    """
    total = 0
    for name in runs:
        here, there = _digests(one, name), _digests(other, name)
        if not here or here != there:
            different = sorted(file for file in here | there if here.get(file) != there.get(file))
            raise RuntimeError(f"run {name}: {one} and {other} do not hold the same: {different or 'no files'}")
        total += len(here)
    return f"{len(runs)} runs ({total} files)"


def _digests(store: Path, run: str) -> dict[str, str]:
    files = (path for folder in store.glob(f"{run}-*") for path in folder.rglob("*"))
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file() and path.suffix != ".json"
    }


def cpu_parts(site: Site, product: str, runs: list[str], whole: Sample, idle: Sample) -> dict[str, float]:
    """CPU seconds a run, by who used them, without what an invocation with nothing to do takes; they add up."""
    steps = sum(f.attempt.cpu_seconds or 0.0 for run in runs for f in all_of(site.state, run))
    strax = sum(site.state.get(run, product, Processed).cpu_seconds for run in runs)
    found = {
        "Snakemake's main process": whole.own_cpu - idle.own_cpu,
        "steps": steps,
        "strax": strax,
    }
    found["starts of the jobs, fork servers"] = whole.cpu - idle.cpu - sum(found.values())
    return {name: seconds / len(runs) for name, seconds in found.items()}


def shares(values: Mapping[str, float]) -> str:
    """The parts of a sum, largest first, in words."""
    total = sum(values.values())
    largest = sorted(values.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {value / total:.0%}" for name, value in largest)


def _jobs(site: Site, kind: Kind, count: int) -> Table:
    inside = [step_seconds(site), step_seconds(site, "cpu_seconds")]
    rows = []
    for rule, seconds in job_seconds(site).items():
        wall, cpu = (f"{steps[rule] / count:.3f}" if rule in steps else "" for steps in inside)
        rows.append([rule, f"{seconds / (1 if rule == 'claim' else count):.2f}", wall, cpu])
    return Table(
        f"A job of a small run, {kind.name}", ["job", "s, by Snakemake", "s, in the step", "CPU s, in the step"], rows
    )


def _loop(lab: Lab, kind: Kind, daq: Path, documents: Documents, name: str) -> Sample:
    strax = [kind.python, "1", kind.context, " ".join(kind.targets)]
    return loop(lab, daq, documents, lab.folder / f"small_loop_{name}", strax, kind.environment)


def _remove(lab: Lab, name: str) -> None:
    shutil.rmtree(lab.folder / name)
