"""When a batch system is asked for the jobs of an invocation: soon once the files of a job are there, else seldom."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

LOOK_S = 1.0
"""Each so many seconds it is looked for files, which asks no batch system."""
SOONEST_S = 5.0
"""So long it is left alone after each query, however many jobs end."""


def pace_polls(executor: Any, clock: Callable[[], float] = time.monotonic) -> None:
    """Let an executor ask when it wants to, and before that if a job has made its files and must so be at its end.

    A job that fails makes none: its end is learned of when the executor asks by itself.
    """
    executor.check_active_jobs = _Pace(executor, clock).check_active_jobs


class _Pace:
    def __init__(self, executor: Any, clock: Callable[[], float]) -> None:
        self.executor, self.clock, self.ask = executor, clock, executor.check_active_jobs
        self.wanted_s: float = executor.next_seconds_between_status_checks or 0.0
        """The executor's own pause between two queries."""
        self.asked = -math.inf
        self.awaited: dict[str, list[str]] = {}
        """Files of each job that were not there when they were last looked for."""

    async def check_active_jobs(self, jobs: list[Any]) -> AsyncIterator[Any]:
        """Yield the jobs that are to be asked for again."""
        since = self.clock() - self.asked
        if jobs and since < self.wanted_s and (since < SOONEST_S or not any(map(self._is_at_its_end, jobs))):
            for job in jobs:
                yield job
            return
        current = {job.external_jobid for job in jobs}
        self.awaited = {number: files for number, files in self.awaited.items() if number in current}
        # it makes its next pause of the last one
        self.executor.next_seconds_between_status_checks = self.wanted_s
        async for job in self.ask(jobs):
            yield job
        self.wanted_s = self.executor.next_seconds_between_status_checks
        self.asked = self.clock()
        self.executor.next_seconds_between_status_checks = min(self.wanted_s, LOOK_S)

    def _is_at_its_end(self, job: Any) -> bool:
        """Whether its files are all there; what was there once is not looked for again."""
        # not by setdefault: a batch job of many steps puts its list together anew each time that it is asked
        if job.external_jobid not in self.awaited:
            self.awaited[job.external_jobid] = [str(file) for file in job.job.output]
        awaited = self.awaited[job.external_jobid]
        while awaited and Path(awaited[-1]).exists():
            awaited.pop()
        return not awaited
