"""What the workflow itself costs: few and many runs with hardly any data."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass

from bench.measure import Sample, a_run, measure, run
from bench.result import Judged, Result, Table, judge
from bench.site import AT_ONCE, COPY, Lab, Site, job_seconds, make_site, step_seconds
from straxflow.lab.daq import Daq, RunPlan
from straxflow.receipts import Transferred, write

RUNS, QUICK_RUNS = (10, 100, 1000), (4,)
SIZE_MB = 1.0
GOAL_S, LINEAR_GOAL = 0.3, 1.15
RECEIPTS = 7
"""Of a run with one product, beside run.json."""
SHARED = "-o ControlMaster=auto -o ControlPath={}/ssh -o ControlPersist=5"
WORK = """
mkdir live staging store
for run in $runs; do
    rsync -a --fsync -e "$ssh" "$host:$source/$run" live/
    cp -r "live/$run" staging/
    (cd staging && find "$run" -type f -exec xxhsum -q -H2 {} +) >"$run.sums"
    cp -r "staging/$run" store/
    sync -f "store/$run"
    rm -r "staging/$run"
done
"""


@dataclass(frozen=True)
class Measured:
    """So many runs: all of them, by as many invocations as it takes, one with nothing to do, and a preview before."""

    count: int
    site: Site
    invocations: list[Sample]
    idle: Sample
    preview: Sample
    mirror_cpu: float
    """Of the status mirror, s a run, start and end apart; part of the main process'."""

    @property
    def taken(self) -> Sample:
        """Of all processes, and of Snakemake's main process alone, a run, start and end apart."""
        return a_run(self.invocations, self.idle, self.count)


def bench(lab: Lab, quick: bool) -> Result:
    """Take small runs through all steps, with a command in place of strax; then do the bare work of some."""
    found = [_measured(lab, count) for count in (QUICK_RUNS if quick else RUNS)]
    one = found[min(1, len(found) - 1)]
    work = _work(lab, one)
    many = found[-1]
    return Result(
        "overhead",
        f"{', '.join(f'{m.count:,}' for m in found)} runs of {SIZE_MB:g} MB, `cp` as their one product, seven jobs a "
        "run (transfer, process, checksum, move_out, register, register_live, release), two at a time; and the bare "
        "work of them: rsync --fsync, cp, xxhsum, cp, sync, rm",
        [
            judge(f"CPU a run beyond the bare work, {one.count:,} runs", one.taken.cpu - work, GOAL_S, " s"),
            *([] if many is one else linear((one.count, many.count), _grown(one, many))),
            judge("main process CPU a run (start and end apart)", one.taken.own_cpu, None, " s"),
            judge("wall clock a run", one.taken.wall, None, " s"),
            judge("an invocation with nothing to do, wall clock", one.idle.wall, None, " s"),
            judge(f"preview of {one.count:,} runs, wall clock", one.preview.wall, None, " s"),
        ],
        [_growth(found), _shares(one, work), _jobs(one.site, one.count)],
        [
            f"An invocation takes {AT_ONCE} runs at most; a preview shows as many. "
            "Start and end apart: less what an invocation with nothing to do takes. The figures are without the run "
            "database and the DAQ's side of ssh.",
            "The status mirror's CPU is that of its thread and of its log handler, by the clocks of the threads that "
            "work for it (bench/with_mirror_told.py). The registration is the steps register and register_live.",
        ],
    )


def linear(counts: tuple[int, int], growth: Mapping[str, float], where: str = "") -> list[Judged]:
    """Whether a run costs as much where there are many: what it takes by what it takes where there are few."""
    what = f"{counts[1]:,} by {counts[0]:,} runs{where}"
    return [judge(f"{name} a run, {what}", ratio, LINEAR_GOAL, "") for name, ratio in growth.items()]


def _grown(one: Measured, many: Measured) -> dict[str, float]:
    return {"wall clock": many.taken.wall / one.taken.wall, "CPU": many.taken.cpu / one.taken.cpu}


def _measured(lab: Lab, count: int) -> Measured:
    settings = {"products": COPY, "claim": {"max_runs": min(count, AT_ONCE)}}
    daq = lab.folder / f"daq_{count}"
    site = make_site(lab, f"overhead_{count}", daq, settings)
    taker = Daq(daq, lab.runs(site.name), "demo-daq")
    for number in range(1, count + 1):
        taker.take(RunPlan(number, size_mb=SIZE_MB, seed=number))
    os.sync()
    told = site.folder / "mirror_cpu"
    program = [sys.executable, "-m", "bench.with_mirror_told", str(told)]
    preview = site.snakemake("-n", program=program)
    invocations, mirror = [], 0.0
    for _ in range(0, count, AT_ONCE):
        invocations.append(site.snakemake(program=program))
        mirror += float(told.read_text())
    idle = site.snakemake(program=program)
    mirror -= len(invocations) * float(told.read_text())
    return Measured(count, site, invocations, idle, preview, mirror / count)


def _work(lab: Lab, one: Measured) -> float:
    """CPU seconds of the bare work a run."""
    folder = lab.folder / "bare_work"
    folder.mkdir()
    # one login for all of them, as straxflow's; the address of a socket may not be long
    with tempfile.TemporaryDirectory(prefix="straxflow-") as short:
        given = {
            "runs": " ".join(f"{number:06d}" for number in range(1, one.count + 1)),
            "ssh": " ".join(["ssh", *lab.sshd.ssh_options, *SHARED.format(short).split()]),
            "host": lab.sshd.host,
            "source": str(lab.folder / f"daq_{one.count}"),
        }
        done = run(["bash", "-euc", WORK], cwd=folder, env=os.environ | given, log=lab.folder / "bare_work.log")
    shutil.rmtree(folder)
    return done.cpu / one.count


def _growth(found: list[Measured]) -> Table:
    cpu = ["CPU, s a run", "main process, CPU s a run", "status mirror, CPU s a run"]
    rows = []
    for m in found:
        seconds = (m.taken.wall, m.taken.cpu, m.taken.own_cpu, m.mirror_cpu)
        a_run_took = [f"{one:.3f}" for one in seconds]
        rows.append([f"{m.count:,}", *a_run_took, f"{m.preview.wall:.2f}", f"{m.idle.wall:.2f}"])
    columns = ["runs", "wall, s a run", *cpu, "preview, s", "idle, s"]
    return Table("By the number of runs, start and end apart", columns, rows)


def _shares(one: Measured, work: float) -> Table:
    """CPU a run by what it is for; receipts and the bare work are part of the steps."""
    steps = {step: seconds / one.count for step, seconds in step_seconds(one.site, "cpu_seconds").items()}
    graph = (one.preview.own_cpu - one.idle.own_cpu) / one.count
    whole, main = one.taken.cpu, one.taken.own_cpu
    parts = {
        "main process: graph of the jobs (a preview's time beyond that of an invocation with nothing to do)": graph,
        "main process: status mirror": one.mirror_cpu,
        "main process: scheduling, its own records": main - graph - one.mirror_cpu,
        "starts of the jobs, forks": whole - main - sum(steps.values()),
        **{f"step {name}": seconds for name, seconds in steps.items()},
        "all": whole,
        f"in the steps: {RECEIPTS} receipts, written and flushed": RECEIPTS * _receipt(one.site),
        "the bare work, by itself": work,
    }
    rows = [[name, f"{seconds:.3f}", f"{seconds / whole:.0%}"] for name, seconds in parts.items()]
    return Table(f"CPU of a run, {one.count:,} runs", ["for", "s", "share of all"], rows)


def _receipt(site: Site) -> float:
    """CPU seconds of writing one."""
    receipt, times = site.state.get("000001", "live", Transferred), 50
    folder = site.folder / "receipts"
    folder.mkdir()

    def several() -> None:
        for i in range(times):
            write(folder / f"{i}.json", receipt)

    return measure(several).cpu / times


def _jobs(site: Site, count: int) -> Table:
    inside = step_seconds(site)
    rows = []
    for rule, seconds in job_seconds(site).items():
        jobs = 1 if rule == "claim" else count
        own = f"{inside[rule] / count:.3f}" if rule in inside else ""
        rows.append([rule, f"{seconds / jobs:.3f}", own])
    return Table(f"Wall clock of a job, {count:,} runs", ["job", "s, with its start", "s, in the step"], rows)
