"""Runs with hardly any data, taken through a private Slurm: how each case is measured and shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench.cluster import SMALL, STEPS, Cluster, Invocation, Settings, Submitter
from bench.measure import Sample, a_run
from bench.result import Table
from bench.site import AT_ONCE, COPY, Lab, make_site
from straxflow.attempts import all_of
from straxflow.lab.daq import Daq, RunPlan

SIZE_MB = 1.0
CLIENTS = ("sbatch", "squeue", "sacct", "srun")


@dataclass(frozen=True)
class Case:
    """So many runs, by as many invocations as it takes, and one with nothing to do."""

    runs: int
    invocations: Sequence[Invocation]
    idle: Sample
    inside: float
    """CPU seconds of the steps in batch jobs, of all runs."""

    @property
    def main(self) -> Sample:
        """What a run takes of the main process and its children, start and end apart."""
        return a_run([one.main for one in self.invocations], self.idle, self.runs)

    @property
    def jobs_cpu(self) -> float:
        """CPU seconds a run of all batch jobs."""
        return sum(one.jobs_cpu for one in self.invocations) / self.runs

    @property
    def cpu(self) -> float:
        """CPU seconds a run, of the main process with its children, start and end apart, and of all batch jobs."""
        return self.main.cpu + self.jobs_cpu

    def calls(self, client: str) -> int:
        """How often a client of Slurm was called."""
        return sum(one.calls.get(client, 0) for one in self.invocations)

    def calls_a_run(self, client: str) -> float:
        """The same by the number of runs."""
        return self.calls(client) / self.runs

    @property
    def parts(self) -> dict[str, float]:
        """CPU seconds a run by who used them; they add up."""
        steps = self.inside / self.runs
        return {
            "main process": self.main.own_cpu,
            "its other jobs": self.main.cpu - self.main.own_cpu,
            "steps in batch jobs": steps,
            "Snakemake in batch jobs": self.jobs_cpu - steps,
        }


@dataclass
class Bed:
    """Where cases are measured: the runs of a DAQ, on a cluster; each case has a site of its own."""

    lab: Lab
    cluster: Cluster
    name: str
    daq: Path
    documents: Sequence[Mapping[str, Any]]
    found: dict[str, list[Case]] = field(default_factory=dict)
    idle: Sample | None = None
    """Of an invocation with nothing to do, which takes as long in all cases."""

    def take_through(self, name: str, count: int, settings: Settings) -> Sample:
        """Measure a case, so many runs with these settings of the profile; what a run takes, as `Case.main`.

        Raises:
            RuntimeError: if an attempt at one of their steps failed.
        """
        cases = self.found.setdefault(name, [])
        changes = {"products": COPY, "claim": {"max_runs": min(count, AT_ONCE)}, **SMALL}
        site = make_site(self.lab, f"{self.name}_{name}_{len(cases)}".replace(" ", "_"), self.daq, changes)
        self.lab.runs(site.name).insert_many([dict(one) for one in self.documents[:count]])
        submit = Submitter(self.cluster, site, settings)
        invocations = [submit() for _ in range(0, count, AT_ONCE)]
        self.idle = self.idle or submit().main
        tries = [file.attempt for one in site.state.all_runs() for file in all_of(site.state, one)]
        if bad := [a for a in tries if a.outcome != "ok"]:
            raise RuntimeError(f"run {bad[0].run}: {bad[0].step}: {bad[0].outcome}, {bad[0].reason}")
        inside = sum(a.cpu_seconds or 0.0 for a in tries if a.step in STEPS)
        cases.append(Case(count, invocations, self.idle, inside))
        site.remove()
        return cases[-1].main


def take(daq: Daq, count: int) -> list[dict[str, Any]]:
    """Runs with hardly any data, by their documents."""
    return [daq.take(RunPlan(number, size_mb=SIZE_MB, seed=number))[0] for number in range(1, count + 1)]


def calls_table(title: str, found: Mapping[str, Sequence[Case]]) -> Table:
    """Medians of the times, and of how often Slurm's clients were called."""
    rows = []
    for name, cases in found.items():
        wall = median(sum(one.main.wall for one in case.invocations) for case in cases)
        a_run = [f"{median(values):.2f}" for values in ([c.main.wall for c in cases], [c.cpu for c in cases])]
        calls = [f"{median(case.calls(client) for case in cases):g}" for client in CLIENTS]
        rows.append([name, f"{cases[0].runs:,}", f"{wall:.1f}", *a_run, *calls])
    columns = ["case", "runs", "wall, s", "s a run", "CPU s a run", *(f"{client} calls" for client in CLIENTS)]
    return Table(title, columns, rows)


def cpu_table(found: Mapping[str, Sequence[Case]]) -> Table:
    """Medians of the CPU of a run by who used it."""
    rows = []
    for name, cases in found.items():
        rows.append([name, *(f"{median(case.parts[part] for case in cases):.2f}" for part in cases[0].parts)])
    (first, *_) = found.values()
    return Table("CPU s a run, start and end apart", ["case", *first[0].parts], rows)
