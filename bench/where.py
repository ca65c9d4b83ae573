"""Where the time of small runs goes: by process, and by job."""

from __future__ import annotations

from collections.abc import Mapping

from bench.measure import Sample
from bench.result import Table
from bench.site import Site, job_seconds, step_seconds
from straxflow.attempts import all_of
from straxflow.receipts import Processed


def cpu_parts(site: Site, product: str, runs: list[str], whole: Sample, idle: Sample) -> dict[str, float]:
    """CPU seconds a run, by who used them, without what an invocation with nothing to do takes; they add up."""
    steps = sum(f.attempt.cpu_seconds or 0.0 for run in runs for f in all_of(site.state, run))
    strax = sum(site.state.get(run, product, Processed).cpu_seconds for run in runs)
    found = {
        "Snakemake's main process": whole.own_cpu - idle.own_cpu,
        "steps": steps,
        "strax": strax,
    }
    found["starts of the jobs (batch jobs too), fork servers"] = whole.cpu - idle.cpu - sum(found.values())
    return {name: seconds / len(runs) for name, seconds in found.items()}


def shares(values: Mapping[str, float]) -> str:
    """The parts of a sum, largest first, in words."""
    total = sum(values.values())
    largest = sorted(values.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {value / total:.0%}" for name, value in largest)


def jobs_table(title: str, site: Site, count: int) -> Table:
    """How long the jobs of a run take, of so many."""
    inside = [step_seconds(site), step_seconds(site, "cpu_seconds")]
    rows = []
    for rule, seconds in job_seconds(site).items():
        wall, cpu = (f"{steps[rule] / count:.3f}" if rule in steps else "" for steps in inside)
        rows.append([rule, f"{seconds / (1 if rule == 'claim' else count):.2f}", wall, cpu])
    return Table(title, ["job", "s, by Snakemake", "s, in the step", "CPU s, in the step"], rows)
