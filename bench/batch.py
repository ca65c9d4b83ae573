"""What a batch system costs: small runs on a private Slurm, one batch job for many, for each run, and for each step."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from bench.cluster import CPU_NOTE, EACH_RUN, STEPS, Settings, cluster, many_runs
from bench.measure import in_turn
from bench.on_slurm import SIZE_MB, Bed, Case, calls_table, cpu_table, take
from bench.result import Judged, Result, judge_all
from bench.site import Lab
from straxflow.lab.daq import Daq

GROUPED, QUICK_GROUPED = 50, 2
TOGETHER, QUICK_TOGETHER = 25, 2
"""Runs in one batch job."""
UNGROUPED, QUICK_UNGROUPED = 15, 1
REPETITIONS, QUICK_REPETITIONS = 2, 1
GOAL_JOBS = 1.0


def bench(lab: Lab, quick: bool) -> Result:
    """Take runs with hardly any data through the same Slurm in all ways, in turn."""
    together = QUICK_TOGETHER if quick else TOGETHER
    runs, fewer = (QUICK_GROUPED, QUICK_UNGROUPED) if quick else (GROUPED, UNGROUPED)
    daq = Daq(lab.folder / "daq_batch", None, "demo-daq")
    documents = take(daq, max(runs, fewer))
    names = (f"{together} runs a job", "one job a run", "one job a step")
    settings: Sequence[Settings] = (many_runs(together), EACH_RUN, {})
    with cluster() as slurm:
        bed = Bed(lab, slurm, "batch", daq.folder, documents)
        ways = {
            name: lambda _, name=name, count=count, profile=profile: bed.take_through(name, count, profile)
            for name, count, profile in zip(names, (runs, runs, fewer), settings, strict=True)
        }
        in_turn(ways, QUICK_REPETITIONS if quick else REPETITIONS)
    found = {name: bed.found[name] for name in names}
    shared, grouped, alone = found.values()
    return Result(
        "batch",
        f"Runs of {SIZE_MB:g} MB, `cp` as their one product, so that next to all is the cost of the engine and of the "
        f"batch system; the profile `stoomboot` with the transfer on the head node, with `groups` for "
        f"{', '.join(STEPS)}, one for each run and one for {together} runs ({runs} runs), and without "
        f"({fewer} runs), in turn. A private Slurm of {slurm}",
        _judged({"grouped": grouped, f"{together} in a group": shared, "not grouped": alone}),
        [calls_table(f"Small runs on Slurm, medians of {len(grouped)}", found), cpu_table(found)],
        [CPU_NOTE, _says(shared, grouped, alone)],
    )


def _judged(ways: dict[str, list[Case]]) -> list[Judged]:
    """Batch jobs, times and polls of all ways; only a run with a batch job of its own has a goal."""
    judged = []
    for how, cases in ways.items():
        what, goal = (" and product chain", GOAL_JOBS) if how == "grouped" else ("", None)
        judged.append(
            judge_all(f"batch jobs a run{what}, {how}", [case.calls_a_run("sbatch") for case in cases], goal, "")
        )
    for how, cases in ways.items():
        what = f"wall clock a run, {how} (start and end apart)"
        judged.append(judge_all(what, [case.main.wall for case in cases], None, " s"))
    for how, cases in ways.items():
        what = f"CPU a run, {how} (start and end apart)"
        judged.append(judge_all(what, [case.cpu for case in cases], None, " s"))
    polls = [case.calls_a_run("squeue") for case in ways["grouped"]]
    return [*judged, judge_all("squeue calls a run, grouped", polls, None, "")]


def _says(shared: list[Case], grouped: list[Case], alone: list[Case]) -> str:
    share = median(case.parts["Snakemake in batch jobs"] / case.cpu for case in grouped)
    (wall, cpu), (wall_shared, cpu_shared) = (_by(cases, alone) for cases in (grouped, shared))
    return (
        f"The start of Snakemake, and of what serves its jobs, inside of the batch jobs is {share:.0%} of a grouped "
        "run's CPU: once for each batch job, which then does all of its steps itself. A run that has a job of its own "
        f"takes {wall:.2f} of the time and {cpu:.2f} of the CPU of one whose steps have; one that shares its job with "
        f"others {wall_shared:.2f} and {cpu_shared:.2f}."
    )


def _by(cases: list[Case], others: list[Case]) -> tuple[float, float]:
    """Medians of the ratios of neighbours: wall clock and CPU a run."""
    pairs = list(zip(cases, others, strict=True))
    return median(a.main.wall / b.main.wall for a, b in pairs), median(a.cpu / b.cpu for a, b in pairs)
