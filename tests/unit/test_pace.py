"""A batch system is asked soon for a job whose files are there, and else as seldom as its executor wants."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from straxflow.pace import LOOK_S, SOONEST_S, pace_polls


class Executor:
    """Asks ever more seldom while nothing ends, as Snakemake's for Slurm does."""

    def __init__(self, *ends: str) -> None:
        self.next_seconds_between_status_checks = 5.0
        self.ends, self.asked_at = set(ends), list[float]()
        self.now = 1000.0

    async def check_active_jobs(self, jobs: list[SimpleNamespace]) -> AsyncIterator[SimpleNamespace]:
        self.asked_at.append(self.now)
        left = [job for job in jobs if job.external_jobid not in self.ends]
        for job in left:
            yield job
        busy = len(left) < len(jobs)
        self.next_seconds_between_status_checks = 5.0 if busy else self.next_seconds_between_status_checks + 10

    def wait(self, jobs: list[SimpleNamespace], seconds: float) -> list[SimpleNamespace]:
        """So long, as Snakemake does: a poll, then a pause."""

        async def poll() -> list[SimpleNamespace]:
            return [job async for job in self.check_active_jobs(jobs)]

        end = self.now + seconds
        while self.now < end:
            jobs = asyncio.run(poll())
            self.now += self.next_seconds_between_status_checks
        return jobs


@pytest.fixture
def executor() -> Executor:
    executor = Executor()
    pace_polls(executor, clock=lambda: executor.now)
    return executor


def job(number: str, *files: Path) -> SimpleNamespace:
    return SimpleNamespace(external_jobid=number, job=SimpleNamespace(output=files))


def test_without_files_the_executor_asks_as_it_wants_to(executor: Executor, tmp_path: Path) -> None:
    jobs = [job("1", tmp_path / "missing")]
    assert executor.wait(jobs, 100) == jobs
    pauses = [b - a for a, b in zip(executor.asked_at, executor.asked_at[1:], strict=False)]
    assert pauses == [15, 25, 35]
    assert executor.next_seconds_between_status_checks == LOOK_S


def test_a_job_whose_files_are_all_there_is_asked_for(executor: Executor, tmp_path: Path) -> None:
    files = [tmp_path / name for name in "abc"]
    jobs = [job("1", *files), job("2", tmp_path / "missing")]
    executor.wait(jobs, 30)
    assert len(executor.asked_at) == 2
    files[0].touch()
    files[2].touch()
    executor.wait(jobs, 3)
    assert len(executor.asked_at) == 2
    files[1].touch()
    executor.ends = {"1"}
    assert executor.wait(jobs, 2) == jobs[1:]
    assert executor.asked_at[-1] >= 1033 and len(executor.asked_at) == 3


def test_many_ends_and_one_that_lingers_do_not_press_it(executor: Executor, tmp_path: Path) -> None:
    (tmp_path / "made").touch()
    executor.wait([job(str(n), tmp_path / "made") for n in range(50)], 60)
    pauses = [b - a for a, b in zip(executor.asked_at, executor.asked_at[1:], strict=False)]
    assert min(pauses) >= SOONEST_S and max(pauses) < SOONEST_S + LOOK_S + 0.1


def test_without_jobs_its_pause_is_its_own(executor: Executor) -> None:
    assert executor.wait([], 10) == []
    assert len(executor.asked_at) == 10
