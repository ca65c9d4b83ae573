"""What a poll of the batch system leaves unsaid is asked again."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace

from straxflow.polls import MOST_S, tend_polls


class Executor:
    """As Snakemake's: polls yield what still runs, and report what has ended."""

    def __init__(self) -> None:
        self.answers = True
        self.ended: dict[str, bool] = {}
        self.reported: list[tuple[str, bool]] = []
        self.next_seconds_between_status_checks = 5.0

    def report_job_success(self, job: SimpleNamespace) -> None:
        self.reported.append((job.name, True))

    def report_job_error(self, job: SimpleNamespace, msg: str | None = None) -> None:
        self.reported.append((job.name, False))

    async def check_active_jobs(self, jobs: list[SimpleNamespace]) -> AsyncIterator[SimpleNamespace]:
        for job in jobs if self.answers else ():
            if job.name not in self.ended:
                yield job
            elif self.ended[job.name]:
                self.report_job_success(job)
            else:
                self.report_job_error(job, msg="failed")
        self.next_seconds_between_status_checks += 10


def poll(executor: Executor, jobs: list[SimpleNamespace]) -> list[str]:
    async def whole() -> list[str]:
        return [job.name async for job in executor.check_active_jobs(jobs)]

    return asyncio.run(whole())


def test_jobs_outlast_polls_without_an_answer() -> None:
    executor, said = Executor(), []
    tend_polls(executor, said.append)
    jobs = [SimpleNamespace(name=name) for name in "abc"]
    assert poll(executor, jobs) == ["a", "b", "c"]
    executor.answers = False
    assert poll(executor, jobs) == poll(executor, jobs) == ["a", "b", "c"]
    assert said == ["the batch system does not tell of 3 jobs; asking on"]
    executor.answers, executor.ended = True, {"a": True, "b": False}
    assert poll(executor, jobs) == ["c"]
    assert executor.reported == [("a", True), ("b", False)]
    assert said[1:] == ["the batch system answers again"]
    assert poll(executor, []) == []
    assert len(said) == 2


def test_polls_follow_one_another_soon_enough() -> None:
    executor = Executor()
    tend_polls(executor, print)
    waits = [poll(executor, []) or executor.next_seconds_between_status_checks for _ in range(4)]
    assert waits == [15, MOST_S, MOST_S, MOST_S]
