"""What the workflow itself costs: many runs with hardly any data."""

from __future__ import annotations

from bench.measure import Sample
from bench.result import Result, Table, judge
from bench.site import Lab, Site, job_seconds, make_site
from straxflow.attempts import all_of
from straxflow.lab.daq import Daq, RunPlan

RUNS, QUICK_RUNS = 20, 4
SIZE_MB = 1.0


def bench(lab: Lab, quick: bool) -> Result:
    """Take small runs through all steps, with a command in place of strax."""
    count = QUICK_RUNS if quick else RUNS
    product = {"from": "live", "kind": "command", "command": "cp -r {source}/{run} {output}"}
    daq = lab.folder / "daq_small"
    site = make_site(lab, "overhead", daq, {"products": {"copy": product}})
    taker = Daq(daq, lab.runs(site.name), "demo-daq")
    for number in range(1, count + 1):
        taker.take(RunPlan(number, size_mb=SIZE_MB, seed=number))
    preview = site.snakemake("-n")
    sample = site.snakemake()
    idle = site.snakemake()
    return Result(
        "overhead",
        f"{count} runs of {SIZE_MB:g} MB, `cp` as their one product, eight jobs a run (run document, transfer, "
        "process, checksum, move_out, register, register_live, release), two at a time",
        [
            judge("main process CPU a run (start and end apart)", _per_run(sample, idle, count), None, " s"),
            judge("CPU of all processes a run", (sample.cpu - idle.cpu) / count, None, " s"),
            judge("wall clock a run", (sample.wall - idle.wall) / count, None, " s"),
            judge("an invocation with nothing to do, wall clock", idle.wall, None, " s"),
            judge(f"preview of {count} runs, wall clock", preview.wall, None, " s"),
        ],
        [_jobs(site, count)],
    )


def _per_run(sample: Sample, idle: Sample, count: int) -> float:
    return (sample.own_cpu - idle.own_cpu) / count


def _jobs(site: Site, count: int) -> Table:
    inside: dict[str, float] = {}
    for run in site.state.all_runs():
        for attempt in (file.attempt for file in all_of(site.state, run)):
            inside[attempt.step] = inside.get(attempt.step, 0.0) + (attempt.seconds or 0.0)
    rows = []
    for rule, seconds in job_seconds(site).items():
        jobs = 1 if rule == "claim" else count
        own = f"{inside[rule] / count:.2f}" if rule in inside else ""
        rows.append([rule, f"{seconds / jobs:.2f}", own])
    return Table("Wall clock of a job", ["job", "s, with the start of Python", "s, in the step"], rows)
