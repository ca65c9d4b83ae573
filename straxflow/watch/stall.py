"""Whether an invocation that says nothing is at work all the same: asked only when it has long been silent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from straxflow import attempts
from straxflow.owner import Owner, this_host
from straxflow.slurm import jobs_of, verdict_on
from straxflow.watch.invocations import Running


def at_work(running: Running, slurm: bool, stall_s: float) -> bool:
    """Whether a job of it waits or runs, or one has left a trace on disk within `stall_s`, as far as can be known.

    Where the batch system does not answer, nobody can tell, and it is left alone.
    """
    if running.runs is None:
        return False  # claiming takes seconds; its local jobs have time-outs of their own
    if slurm:
        jobs = jobs_of(running.batch)
        if jobs is None or jobs:
            return True
    since = time.time() - stall_s
    return any(_trace(running, run, since) or _runs(running, run, slurm) for run in running.runs)


def _trace(running: Running, run: str, since: float) -> bool:
    return any(_mtime(path) > since for path in running.state.run(run).rglob("*.json") if path.name != "claim.json")


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0


def _runs(running: Running, run: str, slurm: bool) -> bool:
    here = this_host()
    for attempt in _open_attempts(running, run):
        if attempt.owner.get("host") == here:
            if not Owner.from_dict(attempt.owner).is_dead():
                return True
        elif not slurm:
            return True  # on another host, of which nobody here can tell
        elif attempt.job_id and (verdict := verdict_on(attempt.job_id)) and verdict.running:
            return True
    return False


def _open_attempts(running: Running, run: str) -> Iterator[attempts.Attempt]:
    for file in attempts.all_of(running.state, run):
        if file.attempt.ended is None and file.attempt.batch == running.batch:
            yield file.attempt
