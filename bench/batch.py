"""What a batch system costs: small runs on a private Slurm, one batch job for many, for each run, and for each step."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.measure import Sample, run
from bench.result import Result, Table, judge
from bench.site import Lab, Site, make_site
from straxflow.attempts import all_of
from straxflow.config.load import ROOT
from straxflow.lab.daq import Daq, RunPlan
from straxflow.lab.slurm import CLIENTS, Slurm

GROUPED, QUICK_GROUPED = 50, 2
TOGETHER, QUICK_TOGETHER = 25, 2
"""Runs in one batch job."""
UNGROUPED, QUICK_UNGROUPED = 15, 1
SIZE_MB = 1.0
GOAL_JOBS = 1.0
STEPS = ("process", "checksum", "move_out")
COUNTED = ("sbatch", "squeue", "sacct", "srun")
SMALL = {"mem_mb": 500, "runtime_min": 1}

EACH_RUN = {"groups": [f"{step}=run_{{run}}" for step in STEPS]}
MANY_RUNS = {"groups": [f"{step}=runs" for step in STEPS], "cores": 2, "resources": ["mem_mb=1500"]}
MANY_RUNS["set-resource-scopes"] = ["mem_mb=local"]

# Slurm calls it as the child of each step's daemon, when that has waited for all that the step has run
EPILOG = """\
#!/bin/sh
read -r line <"/proc/$PPID/stat"
echo "$line" >>{file}
"""


@dataclass(frozen=True)
class Case:
    """What was measured of one way to submit."""

    name: str
    runs: int
    main: Sample
    idle: Sample
    jobs_cpu: float
    steps_cpu: float
    calls: Mapping[str, int]

    @property
    def seconds(self) -> float:
        """Wall clock a run, start and end of the invocation apart."""
        return (self.main.wall - self.idle.wall) / self.runs

    @property
    def cpu(self) -> float:
        """CPU seconds a run, of the main process with its children and of all batch jobs."""
        return (self.main.cpu - self.idle.cpu + self.jobs_cpu) / self.runs

    @property
    def jobs(self) -> float:
        """Batch jobs a run."""
        return self.calls.get("sbatch", 0) / self.runs


def bench(lab: Lab, quick: bool) -> Result:
    """Take runs with hardly any data through the same Slurm in all ways."""
    together = QUICK_TOGETHER if quick else TOGETHER
    counts = (QUICK_GROUPED, QUICK_UNGROUPED) if quick else (GROUPED, UNGROUPED)
    daq = Daq(lab.folder / "daq_batch", None, "demo-daq")
    documents = [daq.take(RunPlan(n, size_mb=SIZE_MB, seed=n))[0] for n in range(1, max(counts) + 1)]
    # the sockets of its daemons want a short path
    folder = Path(tempfile.mkdtemp(prefix="straxflow-"))
    try:
        epilog = folder / "epilog"
        epilog.write_text(EPILOG.format(file=folder / "steps"))
        epilog.chmod(0o755)
        with Slurm(folder / "slurm", extra=f"TaskEpilog={epilog}") as slurm:
            grouped = _case(lab, slurm, daq.folder, "one job a run", documents[: counts[0]], EACH_RUN)
            many = MANY_RUNS | {"group-components": [f"runs={together}"]}
            shared = _case(lab, slurm, daq.folder, f"{together} runs a job", documents[: counts[0]], many, grouped.idle)
            alone = _case(lab, slurm, daq.folder, "one job a step", documents[: counts[1]], {}, grouped.idle)
            nodes = f"{slurm.nodes} nodes of {slurm.cpus} CPUs, on the same {os.cpu_count()} cores"
    finally:
        shutil.rmtree(folder)
    return Result(
        "batch",
        f"Runs of {SIZE_MB:g} MB, `cp` as their one product, so that next to all is the cost of the engine and of the "
        f"batch system; the profile `stoomboot` with the transfer on the head node, with `groups` for "
        f"{', '.join(STEPS)}, one for each run and one for {together} runs ({grouped.runs} runs), and without "
        f"({alone.runs} runs). A private Slurm of {nodes}",
        [
            judge("batch jobs a run and product chain, grouped", grouped.jobs, GOAL_JOBS, ""),
            judge(f"batch jobs a run, {together} in a group", shared.jobs, None, ""),
            judge("batch jobs a run, not grouped", alone.jobs, None, ""),
            judge("wall clock a run, grouped (start and end apart)", grouped.seconds, None, " s"),
            judge(f"wall clock a run, {together} in a group", shared.seconds, None, " s"),
            judge("wall clock a run, not grouped", alone.seconds, None, " s"),
            judge("CPU a run, grouped (start and end apart)", grouped.cpu, None, " s"),
            judge(f"CPU a run, {together} in a group", shared.cpu, None, " s"),
            judge("CPU a run, not grouped", alone.cpu, None, " s"),
            judge("squeue calls a run, grouped", grouped.calls.get("squeue", 0) / grouped.runs, None, ""),
        ],
        [_table([shared, grouped, alone]), _cpu([shared, grouped, alone])],
        [
            "CPU of the batch jobs is what the daemon of each Slurm step had waited for at its end, without Slurm's "
            "own daemons. Slurm's clients were counted by wrappers on the PATH.",
            _says(shared, grouped, alone),
        ],
    )


def _case(
    lab: Lab,
    slurm: Slurm,
    daq: Path,
    name: str,
    documents: list[dict[str, Any]],
    settings: dict[str, Any],
    idle: Sample | None = None,
) -> Case:
    """Measure one way; an invocation with nothing to do takes as long in all, and is measured once."""
    product = {"from": "live", "kind": "command", "command": "cp -r {source}/{run} {output}"}
    changes = {
        "products": {"copy": product},
        "resources": dict.fromkeys(STEPS, SMALL),
        "claim": {"max_runs": len(documents)},
    }
    site = make_site(lab, "batch_" + name.replace(" ", "_"), daq, changes)
    lab.runs(site.name).insert_many([dict(one) for one in documents])
    calls, ended = site.folder / "calls", slurm.folder.parent / "steps"
    environment = _counted(slurm, site.folder / "bin", calls)
    argv = ["snakemake", "--profile", str(_profile(site, settings)), "--configfile", str(site.file)]
    log = site.folder / "snakemake.log"
    ended.write_text("")
    os.sync()
    main = run(argv, cwd=ROOT, env=environment, log=log)
    jobs_cpu = cpu_of_steps(ended.read_text())
    called = Counter(calls.read_text().split())
    idle = idle or run(argv, cwd=ROOT, env=environment, log=log)
    tries = [file.attempt for one in site.state.all_runs() for file in all_of(site.state, one)]
    if bad := [a for a in tries if a.outcome != "ok"]:
        raise RuntimeError(f"run {bad[0].run}: {bad[0].step}: {bad[0].outcome}, {bad[0].reason}")
    inside = sum(a.cpu_seconds or 0.0 for a in tries if a.step in STEPS)
    site.remove()
    return Case(name, len(documents), main, idle, jobs_cpu, inside, called)


def _profile(site: Site, settings: dict[str, Any]) -> Path:
    """A copy of the profile `stoomboot` that goes with this site."""
    profile = yaml.safe_load((ROOT / "profiles/stoomboot/config.yaml").read_text())
    profile |= {"config": {"head_node": ["transfer"]}, "slurm-logdir": str(site.folder / "slurm-logs"), **settings}
    folder = site.folder / "profile"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(profile))
    return folder


def _counted(slurm: Slurm, folder: Path, calls: Path) -> dict[str, str]:
    """An environment in which each call of a Slurm client adds its name to `calls`."""
    folder.mkdir()
    calls.touch()
    for name in CLIENTS:
        wrapper = folder / name
        wrapper.write_text(f'#!/bin/sh\necho {name} >>{calls}\nexec {slurm.folder}/bin/{name} "$@"\n')
        wrapper.chmod(0o755)
    environment = {k: v for k, v in slurm.env.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return {**environment, "PATH": f"{folder}:{environment['PATH']}"}


def cpu_of_steps(lines: str) -> float:
    """CPU seconds of Slurm steps with all that they ran, from the /proc/PID/stat of their daemons at their end."""
    ticks = 0
    for line in lines.splitlines():
        # the name, in brackets, may hold blanks; utime, stime, cutime and cstime are fields 14 to 17
        ticks += sum(map(int, line.rpartition(")")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _table(cases: list[Case]) -> Table:
    columns = ["case", "runs", "wall, s", "s a run", "CPU s a run", *(f"{name} calls" for name in COUNTED)]
    rows = []
    for case in cases:
        counts = [str(case.calls.get(name, 0)) for name in COUNTED]
        rows.append(
            [case.name, str(case.runs), f"{case.main.wall:.1f}", f"{case.seconds:.2f}", f"{case.cpu:.2f}", *counts]
        )
    return Table("Small runs on Slurm", columns, rows)


def _cpu(cases: list[Case]) -> Table:
    rows = []
    for case in cases:
        jobs, steps = case.jobs_cpu / case.runs, case.steps_cpu / case.runs
        here = (case.main.cpu - case.idle.cpu) / case.runs
        own = (case.main.own_cpu - case.idle.own_cpu) / case.runs
        rows.append([case.name, f"{own:.2f}", f"{here - own:.2f}", f"{steps:.2f}", f"{jobs - steps:.2f}"])
    columns = ["case", "main process", "its other jobs", "steps in batch jobs", "Snakemake in batch jobs"]
    return Table("CPU s a run, start and end apart", columns, rows)


def _says(shared: Case, grouped: Case, alone: Case) -> str:
    share = (grouped.jobs_cpu - grouped.steps_cpu) / grouped.runs / grouped.cpu
    return (
        f"The start of Snakemake, and of what serves its jobs, inside of the batch jobs is {share:.0%} of a grouped "
        "run's CPU: once for each batch job, which then does all of its steps itself. A run of one that has a job "
        f"of its own takes {grouped.seconds / alone.seconds:.2f} of the time and {grouped.cpu / alone.cpu:.2f} of the "
        f"CPU of one whose steps have; one that shares its job with others {shared.seconds / alone.seconds:.2f} and "
        f"{shared.cpu / alone.cpu:.2f}."
    )
