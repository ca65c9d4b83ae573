"""Batch jobs are not forgotten when the batch system gives no answer.

A poll of Snakemake's Slurm plugin in which all queries fail (slurmctld is away for half a minute) drops its jobs, and
Snakemake waits for them for ever.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any


def remember_jobs(executor: Any, warn: Callable[[str], object]) -> None:
    """Let an executor's polls keep each job of which they learn nothing; `warn` is told when that begins and ends."""
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
        for job in silent:
            yield job

    executor.check_active_jobs = check_active_jobs
