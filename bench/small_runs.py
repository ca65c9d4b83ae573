"""Many small runs: the whole chain by one invocation, here and on Slurm, against a loop with one fresh Python process
for each run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.bare import loop
from bench.cluster import CPU_NOTE, SMALL, Cluster, Submitter, cluster, many_runs
from bench.kinds import AMSTRAX, DEMO, QUICK_DEMO, Kind, check_same
from bench.measure import Sample, Series, a_run, cpu_of_processes, idle_cores, in_turn
from bench.result import Judged, Result, Table, compare, judge_all, times
from bench.site import Lab, Site, make_site
from bench.where import cpu_parts, jobs_table, shares
from straxflow.lab.daq import Daq, RunPlan

RUNS, QUICK_RUNS = 100, 10
REPETITIONS, QUICK_REPETITIONS = 2, 1
TOGETHER = 50
"""Runs in one batch job."""
SIZE_MB = 5.0
GOAL = 0.2
IDLE = 0.15
"""With less than this part of all cores idle, more work at once would give nothing."""
LOOP, FLOW, SLURM = "loop", "straxflow", "straxflow on Slurm"
Documents = Mapping[str, dict[str, Any]]


def bench(lab: Lab, quick: bool) -> Result:
    """Measure all ways, see that they made the same, and say where the time of a small run goes."""
    count = QUICK_RUNS if quick else RUNS
    daq = Daq(lab.folder / "daq_many", None, "demo-daq")
    documents = {}
    for number in range(1, count + 1):
        documents[f"{number:06d}"], summary = daq.take(RunPlan(number, size_mb=SIZE_MB, seed=number))
    on_slurm = ""
    if quick:
        # without Slurm, which `make setup` does not install
        measured = [_Measured(lab, QUICK_DEMO, daq.folder, documents, QUICK_REPETITIONS)]
    else:
        measured = [_Measured(lab, AMSTRAX, daq.folder, documents, REPETITIONS)]
        with cluster() as slurm:
            measured.append(_Measured(lab, DEMO, daq.folder, documents, REPETITIONS, slurm))
            on_slurm = (
                f"; and of {DEMO.name} by `--profile stoomboot` with the transfer on the head node and {TOGETHER} runs "
                f"in one batch job, on a private Slurm of {slurm}"
            )
    return Result(
        "small runs",
        f"{count} runs of {summary.plain_bytes / 1e6:.1f} MB of records to stored and registered data, by one "
        "`snakemake --profile local`, against bench/bare_loop.sh: rsync --fsync, a fresh Python with strax, xxhsum, "
        f"cp and sync for each run. The loop is measured with some runs and scaled to all{on_slurm}",
        [judged for one in measured for judged in one.judged()],
        [table for one in measured for table in one.tables()],
        [note for one in measured for note in one.notes()],
    )


class _Measured:
    """All ways of one kind, in turn on settled disks; where it goes is that of the last repetition."""

    def __init__(
        self, lab: Lab, kind: Kind, daq: Path, documents: Documents, repetitions: int, slurm: Cluster | None = None
    ) -> None:
        self.lab, self.kind, self.daq, self.documents, self.slurm = lab, kind, daq, documents, slurm
        self.count, self.some = len(documents), list(documents)[: kind.in_loop]
        self.factor = self.count / kind.in_loop
        self.apart = {way: Series(way) for way in (FLOW, SLURM)}
        self.cpu: dict[str, dict[str, float]] = {}
        # what is compiled and cached at the first use is not to be measured
        self._loop("warm", self.some[:1])
        ways = {LOOP: self._by_loop, FLOW: self._by_flow}
        self.series = in_turn(ways | ({SLURM: self._by_slurm} if slurm else {}), repetitions)
        self.series[
            LOOP
        ].name = f"loop of {self.count} fresh processes: that of {kind.in_loop} runs, times {self.factor:.3g}"
        for way in self.cpu:
            self.series[way].name = f"{way}, {self.count} runs"
        for name in ("warm", *map(str, range(repetitions))):
            shutil.rmtree(self._work(name))

    def _work(self, name: str) -> Path:
        return self.lab.folder / f"small_loop_{name}"

    def _loop(self, name: str, runs: list[str]) -> Sample:
        kind = self.kind
        strax = [kind.python, "1", kind.context, " ".join(kind.targets)]
        documents = {run: self.documents[run] for run in runs}
        return loop(self.lab, self.daq, documents, self._work(name), strax, kind.environment)

    def _by_loop(self, i: int) -> Sample:
        fresh = self._loop(str(i), self.some)
        # the loop of the first repetition comes first of all, and is what all others are compared with
        if i:
            self._check(self._work(str(i)) / "store")
        return scaled(fresh, self.factor)

    def _by_flow(self, i: int) -> Sample:
        site = self._site(f"small_runs_{self.kind.name}_{i}", {})
        idle_s, others_cpu = idle_cores(), cpu_of_processes(str(self.lab.folder))
        self.whole = site.snakemake()
        self.idle_s = idle_cores() - idle_s
        self.others_cpu = cpu_of_processes(str(self.lab.folder)) - others_cpu
        self.jobs = jobs_table(f"A job of a small run, {self.kind.name}", site, self.count)
        return self._done(FLOW, site, self.whole, site.snakemake())

    def _by_slurm(self, i: int) -> Sample:
        assert self.slurm
        site = self._site(f"small_runs_slurm_{i}", SMALL)
        submit = Submitter(self.slurm, site, many_runs(TOGETHER))
        idle_s = idle_cores()
        self.submitted = submit()
        self.slurm_idle_s = idle_cores() - idle_s
        return self._done(SLURM, site, self.submitted.whole, submit().whole)

    def _site(self, name: str, more: Mapping[str, Any]) -> Site:
        site = make_site(self.lab, name, self.daq, {**self.kind.settings(self.count), **more})
        self.lab.runs(name).insert_many([dict(one) for one in self.documents.values()])
        os.sync()
        return site

    def _done(self, way: str, site: Site, whole: Sample, idle: Sample) -> Sample:
        """Look at what was made, and where the time went."""
        self._check(site.config.store.folder)
        self.apart[way].samples.append(a_run([whole], idle, self.count))
        self.cpu[way] = cpu_parts(site, self.kind.product, list(self.documents), whole, idle)
        site.remove()
        return whole

    def _check(self, store: Path) -> None:
        self.compared = check_same(store, self._work("0") / "store", self.some)

    def judged(self) -> list[Judged]:
        """The figures of each way, the ratio with its goal first."""
        return [judged for way in self.cpu for judged in self._judged(way)]

    def _judged(self, way: str) -> list[Judged]:
        where = "" if way == FLOW else f" on Slurm, {TOGETHER} a batch job"
        kind, ours, fresh, apart = self.kind, self.series[way], self.series[LOOP], self.apart[way].samples
        what = f"{self.count} small runs, {kind.name} to {kind.targets[-1]}{where}, by as many fresh processes"
        a_run_takes = f"a small run{where} (start and end apart)"
        return [
            compare(what, ours, fresh, GOAL),
            compare(f"{kind.name}{where}: CPU by the loop's", ours, fresh, None, "cpu"),
            judge_all(f"{kind.name}: wall clock of {a_run_takes}", [one.wall for one in apart], None, " s"),
            judge_all(f"{kind.name}: CPU of {a_run_takes}", [one.cpu for one in apart], None, " s"),
        ]

    def tables(self) -> list[Table]:
        """The times, and where they go."""
        return [times(f"All runs, {self.kind.name}", [*self.series.values()]), self._parts(), self.jobs]

    def _parts(self) -> Table:
        names = {name: None for parts in self.cpu.values() for name in parts}
        rows = [[name, *(f"{parts[name]:.3f}" for parts in self.cpu.values())] for name in names]
        return Table(f"CPU s of a run, start and end apart, {self.kind.name}", ["part", *self.cpu], rows)

    def notes(self) -> list[str]:
        """In words."""
        name, count = self.kind.name, self.count
        cores, unused = os.cpu_count() or 1, self.idle_s / self.whole.wall
        fresh = self.series[LOOP]
        said = [
            f"{name}: the strax data files of {self.compared} are bit-identical in all ways and repetitions (metadata "
            "tell times).",
            f"{name}: a run takes {(self.whole.cpu + self.others_cpu) / count:.2f} CPU s, of which "
            f"{self.others_cpu / count:.2f} are the run database's and the DAQ's side of ssh; {unused:.1f} of the "
            f"machine's {cores} cores were idle, so it is limited by "
            f"{'waiting (disk, scheduling)' if unused > IDLE * cores else 'the CPU'}. Of straxflow's own, start and "
            f"end apart: {shares(self.cpu[FLOW])}.",
            f"{name}: the loop takes {fresh.median() / count:.2f} s and {fresh.median('cpu') / count:.2f} CPU s a run, "
            "nearly all of it the start of Python with strax, and what strax compiles in each process; it claims, "
            "checks, reads back and registers nothing.",
        ]
        return said + ([self._says_slurm()] if self.slurm else [])

    def _says_slurm(self) -> str:
        calls, unused = self.submitted.calls, self.slurm_idle_s / self.submitted.main.wall
        return (
            f"{self.kind.name} on Slurm: {calls['sbatch']} batch jobs and {calls['squeue']} calls of squeue; "
            f"{self.submitted.jobs_cpu / self.count:.2f} CPU s a run in batch jobs; {unused:.1f} of the machine's "
            f"{os.cpu_count()} cores were idle. {CPU_NOTE}"
        )


def scaled(sample: Sample, factor: float) -> Sample:
    """What so many times the work would take, if each part takes as long as those that were measured."""
    return Sample(sample.wall * factor, sample.cpu * factor, sample.own_cpu * factor, sample.peak_mb)
