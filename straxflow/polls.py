"""How Snakemake's Slurm plugin asks for its jobs: none is forgotten, and none that has ended waits for long.

A poll of the plugin in which all queries fail (slurmctld is away for half a minute) drops its jobs, and Snakemake waits
for them for ever. From poll to poll it asks more seldom, up to every three minutes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

MOST_S = 20.0
"""One query for all jobs of an invocation each so many seconds is no burden to a Slurm."""


def tend_polls(executor: Any, warn: Callable[[str], object]) -> None:
    """Let an executor's polls keep each job of which they learn nothing, and follow one another within `MOST_S`.

    `warn` is told when a batch system begins to be silent, and when that ends.
    """
    told: set[int] = set()

    def noting(report: Callable[..., None]) -> Callable[..., None]:
        def noted(job: object, *words: object, **more: object) -> None:
            told.add(id(job))
            report(job, *words, **more)

        return noted

    executor.report_job_success = noting(executor.report_job_success)
    executor.report_job_error = noting(executor.report_job_error)
    ask = executor.check_active_jobs
    in_the_dark = False

    async def check_active_jobs(jobs: list[Any]) -> AsyncIterator[Any]:
        nonlocal in_the_dark
        told.clear()
        kept = set()
        async for job in ask(jobs):
            kept.add(id(job))
            yield job
        silent = [job for job in jobs if id(job) not in kept | told]
        if bool(silent) != in_the_dark and jobs:
            in_the_dark = bool(silent)
            warn(
                f"the batch system does not tell of {len(silent)} jobs; asking on"
                if silent
                else "the batch system answers again"
            )
        executor.next_seconds_between_status_checks = min(executor.next_seconds_between_status_checks, MOST_S)
        for job in silent:
            yield job

    executor.check_active_jobs = check_active_jobs
