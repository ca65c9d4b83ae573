"""What a run costs on Slurm by the number of runs, many of them in one batch job."""

from __future__ import annotations

from bench.cluster import CPU_NOTE, cluster, many_runs
from bench.on_slurm import SIZE_MB, Bed, Case, calls_table, cpu_table, take
from bench.overhead import linear
from bench.result import Judged, Result, judge
from bench.site import AT_ONCE, Lab
from straxflow.lab.daq import Daq

RUNS, QUICK_RUNS = (10, 100, 1000), (2, 4)
TOGETHER, QUICK_TOGETHER = 50, 2
"""Runs in one batch job, at most."""


def bench(lab: Lab, quick: bool) -> Result:
    """Take ever more runs with hardly any data through the same Slurm."""
    counts, together = (QUICK_RUNS, QUICK_TOGETHER) if quick else (RUNS, TOGETHER)
    daq = Daq(lab.folder / "daq_growth", None, "demo-daq")
    documents = take(daq, counts[-1])
    with cluster() as slurm:
        bed = Bed(lab, slurm, "growth", daq.folder, documents)
        for count in counts:
            bed.take_through(f"{count} runs", count, many_runs(together))
    found = {f"{case.runs:,} runs": [case] for (case,) in bed.found.values()}
    (few,), (many,) = list(found.values())[-2:]
    return Result(
        "growth on Slurm",
        f"{', '.join(f'{count:,}' for count in counts)} runs of {SIZE_MB:g} MB, `cp` as their one product; the profile "
        f"`stoomboot` with the transfer on the head node and {together} runs in one batch job. A private Slurm of "
        f"{slurm}",
        [*linear((few.runs, many.runs), _growth(few, many), " on Slurm"), *_judged(many)],
        [calls_table("By the number of runs; s a run start and end apart", found), cpu_table(found)],
        [
            f"An invocation takes {AT_ONCE} runs at most, so {many.runs:,} take {len(many.invocations)}. Start and end "
            "apart: less what as many invocations with nothing to do take. Each invocation waits for squeue to tell of "
            "the end of its last batch job: seconds, which are the more for each run, the fewer there are.",
            CPU_NOTE,
        ],
    )


def _growth(few: Case, many: Case) -> dict[str, float]:
    return {"wall clock": many.main.wall / few.main.wall, "CPU": many.cpu / few.cpu}


def _judged(many: Case) -> list[Judged]:
    """What a run takes where there are many."""
    where = f"{many.runs:,} runs on Slurm"
    return [
        judge(f"wall clock a run, {where}", many.main.wall, None, " s"),
        judge(f"CPU a run, {where}", many.cpu, None, " s"),
        judge(f"main process CPU a run, {where}", many.main.own_cpu, None, " s"),
        judge(f"batch jobs for {where}", many.calls("sbatch"), None, ""),
        judge(f"squeue calls for {where}", many.calls("squeue"), None, ""),
    ]
