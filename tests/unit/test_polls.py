"""What a poll of the batch system leaves unsaid is asked again."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

from straxflow.polls import MOST_S, tend_polls


class Executor:
    """As Snakemake's: polls yield what still runs, and report what has ended."""

    def __init__(self) -> None:
        self.answers = True
        self.ended: dict[str, bool] = {}
        self.reported: list[tuple[str, object]] = []
        self.next_seconds_between_status_checks = 5.0
        self.run_uuid = "ours"

    def run_job(self, job: SimpleNamespace) -> None:
        try:
            raise OSError("disk full")
        except OSError:
            raise AttributeError("no rule") from None

    def report_job_submission(self, job: SimpleNamespace) -> None:
        pass

    def _report_job_error_threadsafe(self, job: SimpleNamespace, msg: str) -> None:
        self.reported.append((msg, job.job))

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


def job(name: str, *output: Path, **resources: str) -> SimpleNamespace:
    """A job in the batch system, with its number."""
    inner = SimpleNamespace(output=[str(file) for file in output], resources=resources)
    return SimpleNamespace(name=name, external_jobid=name, job=inner)


def poll(executor: Executor, jobs: list[SimpleNamespace]) -> list[str]:
    async def whole() -> list[str]:
        return [job.name async for job in executor.check_active_jobs(jobs)]

    return asyncio.run(whole())


def test_jobs_outlast_polls_without_an_answer() -> None:
    executor, said = Executor(), []
    tend_polls(executor, said.append, known=lambda _: None)
    jobs = [job(name) for name in "abc"]
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


def test_jobs_that_the_batch_system_has_forgotten_are_ended_by_what_they_made(tmp_path: Path) -> None:
    executor, said = Executor(), []
    known: set[str] | None = {"1", "2"}
    tend_polls(executor, said.append, known=lambda name: known if name == "ours" else None, forgotten_s=0)
    made, old = tmp_path / "made", tmp_path / "old"
    old.touch()
    os.utime(old, (1e9, 1e9))
    jobs = [
        job("1"),
        job("2_7"),  # of the array 2
        job("3", tmp_path / "not made"),
        job("4", made),
        job("5", old),
        job("6", cluster="another"),
        job("7", slurm_extra="--exclusive -M another"),
    ]
    for one in jobs:
        executor.report_job_submission(one)
    made.touch()
    os.utime(made, (time.time() + 1, time.time() + 1))  # the kernel's clock for files runs in steps
    names = [one.name for one in jobs]
    assert poll(executor, jobs) == names  # the first time may be chance
    known = None
    assert poll(executor, jobs) == names
    assert executor.reported == []
    known = {"1", "2"}
    assert poll(executor, jobs) == ["1", "2_7", "6", "7"]
    assert executor.reported == [("3", False), ("4", True), ("5", False)]
    assert said == ["the batch system has forgotten job 4, whose files are all there"]


def test_a_job_that_could_not_be_submitted_has_failed() -> None:
    executor, group, said = Executor(), SimpleNamespace(name="run_000001"), []
    tend_polls(executor, said.append)
    executor.run_job(group)
    assert said == ["the batch job run_000001 could not be submitted: disk full"]
    assert executor.reported == [(said[0], group)]


def test_a_job_is_forgotten_only_if_it_stays_unknown() -> None:
    executor = Executor()
    known: set[str] = set()
    tend_polls(executor, print, known=lambda _: known, forgotten_s=0)
    jobs = [job("1")]
    assert poll(executor, jobs) == ["1"]
    known = {"1"}
    assert poll(executor, jobs) == ["1"]
    known = set()
    assert poll(executor, jobs) == ["1"]
    assert poll(executor, jobs) == []


def test_a_number_that_was_given_again_is_that_of_the_newer_job() -> None:
    executor = Executor()
    tend_polls(executor, print, known=lambda _: {"1"}, forgotten_s=0)
    lost, newer = job("1", Path("not made")), job("1")
    lost.name = "lost"
    executor.ended = {"1": True}
    assert poll(executor, [lost, newer]) == []
    assert executor.reported == [("lost", False), ("1", True)]


def test_the_batch_system_is_asked_seldom_for_what_it_knows() -> None:
    executor, asked = Executor(), []
    tend_polls(executor, print, known=lambda _: asked.append(1) or {"1"})  # type: ignore[func-returns-value]
    for _ in range(5):
        poll(executor, [job("1")])
    assert len(asked) == 1
    executor.answers = False
    poll(executor, [job("1")])
    executor.answers = True
    poll(executor, [job("1")])
    assert len(asked) == 2  # what it came back without shows at once
