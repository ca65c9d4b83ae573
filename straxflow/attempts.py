"""Attempt files: one per try of a step, written at its start and at its end; a kill leaves it open."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from straxflow.errors import Cause, ClaimLost, Damaged, Misconfigured, Retryable, StraxflowError
from straxflow.fsio import write_atomic
from straxflow.owner import Owner
from straxflow.receipts import State, now
from straxflow.slurm import Verdict, verdict_on

Outcome = Literal["ok", "failed", "damaged", "misconfigured", "retry", "stopped", "claim lost", "killed"]
"""`retry`, `stopped` (by a signal: Ctrl-C, scancel) and `misconfigured` are not held against the run."""


class Attempt(BaseModel):
    """One try of a step."""

    model_config = ConfigDict(extra="forbid")

    run: str
    product: str
    step: str
    batch: str
    owner: dict[str, str | int]
    job_id: str | None = None
    log: str
    started: AwareDatetime = Field(default_factory=now)
    ended: AwareDatetime | None = None
    outcome: Outcome | None = None
    reason: str | None = None
    cause: Cause | None = None
    exit: int | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    peak_rss_mb: float | None = None
    """Of the largest process of the step, MB; `own_peak_rss_mb` is that of the step's own process."""
    own_peak_rss_mb: float | None = None


class AttemptFile:
    """An attempt with its place."""

    def __init__(self, path: Path, attempt: Attempt) -> None:
        self.path = path
        self.attempt = attempt

    @classmethod
    def start(cls, state: State, run: str, product: str, step: str, batch: str, log: str) -> AttemptFile:
        """Begin an attempt of this process and write its file."""
        owner = Owner.current()
        attempt = Attempt(
            run=run,
            product=product,
            step=step,
            batch=batch,
            owner=owner.as_dict(),
            job_id=os.environ.get("SLURM_JOB_ID") or os.environ.get("STRAXFLOW_JOB_ID"),
            log=log,
        )
        stamp = attempt.started.strftime("%Y%m%dT%H%M%S%f")
        path = folder(state, run, product) / f"{stamp}-{step}-{owner.token()[-8:]}.json"
        file = cls(path, attempt)
        file._write()
        return file

    def end(
        self, outcome: Outcome, reason: str | None = None, exit_code: int | None = None, cause: Cause | None = None
    ) -> None:
        """Complete the attempt of this process."""
        ended = now()
        usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        own_peak = _own_peak_rss_mb()
        self.attempt = self.attempt.model_copy(
            update={
                "ended": ended,
                "outcome": outcome,
                "reason": reason,
                "cause": cause,
                "exit": exit_code,
                "seconds": (ended - self.attempt.started).total_seconds(),
                "cpu_seconds": sum(u.ru_utime + u.ru_stime for u in usage),
                "peak_rss_mb": max(own_peak, usage[1].ru_maxrss / 1024),
                "own_peak_rss_mb": own_peak,
            }
        )
        self._write()

    def complete(self, verdict: Verdict, asked: bool = False) -> None:
        """Complete an attempt that a kill left open, or that only a signal explains so far, from another process.

        With `asked`, a person had its invocation stopped: what was cancelled, or just ended, did not fail.
        """
        outcome: Outcome = "stopped" if asked and verdict.cause in (None, "cancelled") else "killed"
        update = {"outcome": outcome, "reason": f"{outcome}: {verdict.words}", "cause": verdict.cause}
        self.attempt = self.attempt.model_copy(
            update={"ended": now(), **update} if self.attempt.ended is None else update
        )
        self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path, self.attempt.model_dump_json(indent=1).encode() + b"\n")


def _own_peak_rss_mb() -> float:
    # not ru_maxrss of this process: it starts at the size of what forked it, which is snakemake
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def folder(state: State, run: str, product: str) -> Path:
    """Where the attempts of a product stand."""
    return state.run(run) / product / "attempts"


def all_of(state: State, run: str) -> Iterator[AttemptFile]:
    """All attempts of a run, oldest first; unreadable files are passed over (they are history, not state)."""
    # Path.glob would compile its pattern anew in each job
    products = (path.name for path in _inside(state.run(run)))
    yield from _read(path for product in products for path in _inside(folder(state, run, product)))


def _inside(place: Path) -> list[Path]:
    try:
        return list(place.iterdir())
    except OSError:
        return []


def _read(files: Iterable[Path]) -> Iterator[AttemptFile]:
    for path in sorted((path for path in files if path.suffix == ".json"), key=lambda path: path.name):
        try:
            yield AttemptFile(path, Attempt.model_validate_json(path.read_text(encoding="utf-8")))
        except (ValidationError, OSError):
            continue


def deciding(tried: Iterable[Attempt], since: datetime | None = None) -> dict[tuple[str, str], Attempt]:
    """Of each job (product, step) the attempt that tells how it stands, of those (oldest first) begun after `since`.

    That is the last one; but of two copies of a job, which batch systems do run, the one that made the receipt.
    """
    found: dict[tuple[str, str], Attempt] = {}
    made: dict[tuple[str, str], datetime] = {}
    for attempt in tried:
        if since is not None and attempt.started < since:
            continue
        job = attempt.product, attempt.step
        if attempt.outcome == "ok" and attempt.ended:
            made[job] = max(attempt.ended, made.get(job, attempt.ended))
            found[job] = attempt
        elif job not in made or made[job] < attempt.started:
            found[job] = attempt
    return found


def complete_open(state: State, run: str, batch: str | None = None, asked: bool = False) -> list[Attempt]:
    """Complete the attempts of a run that nobody will complete: their process is provably dead, the batch system has
    ended their job, or they belong to `batch`, an invocation that has ended. Those that a signal stopped get the
    batch system's reason, as long as it still knows the job (Slurm: MinJobAge, 5 min by default). With `asked`, those
    of `batch` were cancelled because a person stopped it."""
    completed = []
    for file in all_of(state, run):
        attempt = file.attempt
        stopped = attempt.outcome == "stopped" and attempt.job_id and not attempt.cause
        if attempt.ended is not None and not stopped:
            continue
        on_demand = asked and attempt.batch == batch
        verdict = verdict_on(attempt.job_id) if attempt.job_id else None
        dead = Owner.from_dict(attempt.owner).is_dead()
        if verdict and verdict.running:
            if not dead or attempt.batch != batch:
                continue
            # the invocation itself stands in an allocation, which lives on
            verdict = None
        if stopped:
            if verdict:
                file.complete(verdict, on_demand)
        elif verdict or attempt.batch == batch or dead:
            # it may have ended well since this was read; whose process is gone writes no more
            latest = next(_read([file.path]), file)
            if latest.attempt.ended is None:
                latest.complete(verdict or Verdict("its process is gone without a word"), on_demand)
                completed.append(latest.attempt)
    return completed


def hopeless(state: State, run: str, product: str, step: str, batch: str) -> Attempt | None:
    """An earlier attempt of the same job in this invocation whose outcome the same invocation cannot better."""
    files = [path for path in _inside(folder(state, run, product)) if f"-{step}-" in path.name]
    earlier = [file.attempt for file in _read(files) if (file.attempt.step, file.attempt.batch) == (step, batch)]
    if earlier and earlier[-1].outcome in ("retry", "damaged", "misconfigured", "claim lost"):
        return earlier[-1]
    return None


def outcome_of(error: BaseException) -> Outcome:
    """How an attempt that ended in this error is filed."""
    table: list[tuple[type[StraxflowError], Outcome]] = [
        (ClaimLost, "claim lost"),
        (Retryable, "retry"),
        (Damaged, "damaged"),
        (Misconfigured, "misconfigured"),
    ]
    return next((outcome for kind, outcome in table if isinstance(error, kind)), "failed")
