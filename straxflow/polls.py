"""How Snakemake's Slurm plugin asks for its jobs: none is forgotten, and none that has ended waits for long.

A poll of the plugin in which all queries fail (slurmctld is away for half a minute) drops its jobs, and Snakemake waits
for them for ever. So it does for a job that Slurm itself has forgotten: a slurmctld that dies loses the jobs of its
last seconds, whose numbers it then gives again, and one that is away for longer than MinJobAge those that ended
meanwhile; and for a job with several steps that could not be submitted, for the plugin's own report of such an error
breaks. From poll to poll it asks more seldom, up to every three minutes.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from straxflow.slurm import known_jobs

MOST_S = 20.0
"""One query for all jobs of an invocation each so many seconds is no burden to a Slurm."""
FORGOTTEN_S = 30.0
"""Slurm has forgotten a job that it has not known for so many seconds."""


def tend_polls(
    executor: Any,
    warn: Callable[[str], object],
    known: Callable[[str], set[str] | None] = known_jobs,
    forgotten_s: float = FORGOTTEN_S,
) -> None:
    """Let an executor's polls keep each job of which they learn nothing, end those that the batch system has forgotten
    or never got, and follow one another within `MOST_S`.

    `warn` is told when a batch system begins to be silent, when that ends, what it has forgotten and what could not be
    submitted. `known` gives the numbers of all jobs of a name that it knows, None if it does not answer; it is asked
    each `forgotten_s` seconds.
    """
    _Polls(executor, warn, known, forgotten_s).tend()


@dataclass
class _Polls:
    """What is known from one poll to the next."""

    executor: Any
    warn: Callable[[str], object]
    known: Callable[[str], set[str] | None]
    forgotten_s: float
    ask: Callable[[list[Any]], AsyncIterator[Any]] = field(init=False)
    submit: Callable[[Any], object] = field(init=False)
    told: set[int] = field(default_factory=set)
    submitted: dict[str, float] = field(default_factory=dict)
    in_the_dark: bool = False
    asked: float = 0.0
    unknown_since: dict[str, float] = field(default_factory=dict)

    def tend(self) -> None:
        """Stand between Snakemake and its executor."""
        executor = self.executor
        self.ask, self.submit = executor.check_active_jobs, executor.run_job
        executor.report_job_success = _noting(executor.report_job_success, self._was_told)
        executor.report_job_error = _noting(executor.report_job_error, self._was_told)
        executor.report_job_submission = _noting(executor.report_job_submission, self._was_submitted)
        executor.check_active_jobs = self.check_active_jobs
        executor.run_job = self.run_job

    def run_job(self, job: Any) -> None:
        """Submit a job, in a thread that nobody listens to: whatever breaks there ends the job."""
        try:
            self.submit(job)
        except Exception as error:
            why = f"the batch job {job.name} could not be submitted: {error.__context__ or error}"
            self.warn(why)  # of a job with several steps Snakemake tells no reason
            self.executor._report_job_error_threadsafe(SimpleNamespace(job=job, external_jobid=None, aux={}), why)

    async def check_active_jobs(self, jobs: list[Any]) -> AsyncIterator[Any]:
        """Yield the jobs that are to be asked for again, and report the others."""
        self.told.clear()
        # a number that was given again is that of the newer job
        newest = {job.external_jobid: job for job in jobs}
        for job in jobs:
            if newest[job.external_jobid] is not job:
                self._end(job)
        jobs = [*newest.values()]
        kept = [job async for job in self.ask(jobs)]
        silent = [job for job in jobs if id(job) not in self.told | {id(job) for job in kept}]
        if bool(silent) != self.in_the_dark and jobs:
            self.in_the_dark = bool(silent)
            self.warn(
                f"the batch system does not tell of {len(silent)} jobs; asking on"
                if silent
                else "the batch system answers again"
            )
            self.asked = 0.0  # what it came back without
        seconds = self.executor.next_seconds_between_status_checks
        self.executor.next_seconds_between_status_checks = min(seconds, MOST_S)
        gone = self._forgotten(kept)
        for job in gone:
            self._end(job)
        for job in (*kept, *silent):
            if job not in gone:
                yield job

    def _was_told(self, job: Any) -> None:
        self.told.add(id(job))

    def _was_submitted(self, job: Any) -> None:
        self.submitted[job.external_jobid] = time.time()

    def _forgotten(self, jobs: list[Any]) -> list[Any]:
        if not jobs or time.monotonic() - self.asked < self.forgotten_s:
            return []
        numbers = self.known(self.executor.run_uuid)
        if numbers is None:
            return []
        self.asked = now = time.monotonic()
        unknown = [job for job in jobs if not _elsewhere(job) and _number(job) not in numbers]
        self.unknown_since = {job.external_jobid: self.unknown_since.get(job.external_jobid, now) for job in unknown}
        return [job for job in unknown if self.unknown_since[job.external_jobid] + self.forgotten_s < now]

    def _end(self, job: Any) -> None:
        if _made_since(job, self.submitted.get(job.external_jobid, time.time())):
            self.warn(f"the batch system has forgotten job {job.external_jobid}, whose files are all there")
            self.executor.report_job_success(job)
        else:
            self.executor.report_job_error(job, msg=f"The batch system has forgotten job {job.external_jobid}.")


def _noting(report: Callable[..., None], note: Callable[[Any], None]) -> Callable[..., None]:
    def noted(job: Any, *words: object, **more: object) -> None:
        note(job)
        report(job, *words, **more)

    return noted


def _number(job: Any) -> str:
    """The number of a batch job; one in an array has that of the array."""
    return str(job.external_jobid).partition("_")[0]


def _elsewhere(job: Any) -> bool:
    """Whether a job may have been sent to another cluster than the one that is asked."""
    resources = job.job.resources
    named = any(resources.get(name) for name in ("cluster", "clusters", "slurm_cluster"))
    return named or "SBATCH_CLUSTERS" in os.environ or bool(re.search(r"(^|\s)-M", str(resources.get("slurm_extra"))))


def _made_since(job: Any, submitted: float) -> bool:
    """Whether all files of a job were made after it was sent away (s since 1970); not so if their disk's clock is
    behind, and the job is made again."""
    try:
        return all(Path(file).stat().st_mtime >= submitted for file in job.job.output)
    except OSError:
        return False
