"""Whether there is work for one more invocation."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from itertools import islice, takewhile

from straxflow.config import Config
from straxflow.plan import available
from straxflow.receipts import State
from straxflow.rundb.client import RunDb
from straxflow.rundb.gate import look
from straxflow.rundb.pending import Candidate, anything_due, candidates


@dataclass(frozen=True)
class Work:
    """What one more invocation would find."""

    run: str | None = None
    """A run that it would claim; None: there is none."""
    held: str | None = None
    """Why nothing may be claimed all the same, and what to do."""
    most: int | None = None
    """How many runs it is to claim at most, if fewer than usual."""


def look_for_work(
    db: RunDb, config: Config, campaign: str, alive: Collection[str] = (), newer_than: int | None = None
) -> Work:
    """What one more invocation would find; with `newer_than`, only newer runs and those that go before all others."""
    here = partial(available, config, State(config.folders.state / campaign))
    due = anything_due(db, config, campaign, alive, here)
    if newer_than is None or not due.start:
        return Work(due.run, due.held)
    urgent = {*config.runs.tags.prioritize}

    def cannot_wait(candidate: Candidate) -> bool:
        return candidate.run.facts.number > newer_than or bool(urgent & {*candidate.run.tags})

    # in the order in which they are claimed, so those that cannot wait are the first, and mostly few
    found = candidates(db, config, campaign, lambda _: None, look(db, config, campaign), wanted=1)
    ready = (candidate for candidate in found if here(candidate.run.id))
    runs = [one.run.id for one in islice(takewhile(cannot_wait, ready), config.claim.max_runs)]
    return Work(runs[0], most=len(runs)) if runs else Work()
