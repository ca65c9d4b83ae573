"""The claim of a run as its jobs see it: a file beside the receipts, judged by its token, never by its age."""

from __future__ import annotations

import fcntl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from straxflow.errors import ClaimLost
from straxflow.fsio import write_atomic
from straxflow.receipts import State, now


class ClaimFile(BaseModel):
    """claim.json: who works on the run. The database is first, this file second."""

    model_config = ConfigDict(extra="forbid")

    run: str
    token: int
    batch: str
    owner: dict[str, str | int]
    left_out: dict[str, str] = {}
    """Products that are not made in this pass, each with the reason."""
    made: AwareDatetime = Field(default_factory=now)


def path(state: State, run: str) -> Path:
    """Where the claim of a run stands."""
    return state.run(run) / "claim.json"


def read(state: State, run: str) -> ClaimFile | None:
    """The claim of a run as last written; None if it was never claimed.

    Raises:
        ClaimLost: if the file cannot be read as a claim.
    """
    file = path(state, run)
    try:
        return ClaimFile.model_validate_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise ClaimLost(f"run {run}: {file} is not a claim ({error.errors()[0]['msg']})") from None


def write(state: State, claim: ClaimFile) -> None:
    """Mirror a claim from the database; a later claim's file is never overwritten by an earlier one.

    Raises:
        ClaimLost: if a later claim stands there already.
    """
    file = path(state, claim.run)
    file.parent.mkdir(parents=True, exist_ok=True)
    with (file.parent / ".claim.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            there = read(state, claim.run)
        except ClaimLost:
            there = None
        if there and there.token > claim.token:
            raise ClaimLost(
                f"run {claim.run}: claimed again (token {there.token}, batch {there.batch}) "
                f"while this claim (token {claim.token}) was being written"
            )
        write_atomic(file, claim.model_dump_json(indent=1).encode() + b"\n")


@dataclass(frozen=True)
class Fence:
    """What a job holds: the token of its batch's claim. Checked at its start and again before it publishes."""

    state: State
    run: str
    batch: str
    token: int
    left_out: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def enter(cls, state: State, run: str, batch: str) -> Fence:
        """The fence of a job of this batch.

        Raises:
            ClaimLost: if the run is claimed by another invocation, or by none.
        """
        claim = read(state, run)
        if claim is None:
            raise ClaimLost(
                f"run {run}: no invocation has claimed it, so nothing may be done on it; "
                "start the work through snakemake (without --no-hooks)"
            )
        if claim.batch != batch:
            raise ClaimLost(
                f"run {run}: claimed by invocation {claim.batch} on {claim.owner.get('host')} "
                f"(pid {claim.owner.get('pid')}), not by {batch}; nothing was done"
            )
        return cls(state, run, batch, claim.token, claim.left_out)

    def check(self) -> None:
        """Make sure that the claim still holds.

        Raises:
            ClaimLost: if the run was taken over.
        """
        claim = read(self.state, self.run)
        if claim is None or (claim.batch, claim.token) != (self.batch, self.token):
            taker = f"invocation {claim.batch} on {claim.owner.get('host')}" if claim else "nobody (file gone)"
            raise ClaimLost(f"run {self.run}: taken over by {taker}; this job publishes nothing")
