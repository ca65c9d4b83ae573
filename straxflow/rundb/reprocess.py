"""A reprocessing campaign in the run documents: its runs are queued, held, let go on, called off, and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from straxflow.config import Config
from straxflow.rundb.chosen import FIELDS, Chosen, usable
from straxflow.rundb.client import Document, RunDb
from straxflow.rundb.orders import Orders, Outcome
from straxflow.rundb.rundoc import status_holder

PAUSED = "paused"
CANCELLED = "cancelled"
OPEN = ("pending", "failed")
RECENT = 200
"""Runs by whose times the speed is told."""


def of_campaign(db: RunDb, config: Config, campaign: str) -> tuple[list[Chosen], list[str]]:
    """All runs of a campaign, oldest first."""
    query = {f"straxflow.{campaign}.processing_status": {"$exists": True}}
    return usable(list(db.runs.find(query, dict.fromkeys(FIELDS, 1)).sort("number", 1)), config)


def queue(orders: Orders, run: Chosen) -> Outcome:
    """Make a run pending in the campaign; one that is or was in it already stays as it is, unless it was cancelled."""
    status = run.status(orders.campaign, orders.config)
    if status not in (None, CANCELLED):
        return Outcome(run.id, "same", f"is in it already: {status}")
    return orders.set_state(run, "pending", "queued", forget=True)


def pause(orders: Orders, run: Chosen) -> Outcome:
    """Keep a run from being claimed."""
    status = run.status(orders.campaign, orders.config)
    if status not in OPEN:
        return Outcome(run.id, "same", f"is {status}")
    return orders.set_state(run, PAUSED, f"paused (was {status})")


def resume(orders: Orders, run: Chosen) -> Outcome:
    """Let a paused run be claimed again."""
    status = run.status(orders.campaign, orders.config)
    if status != PAUSED:
        return Outcome(run.id, "same", f"is {status}")
    return orders.set_state(run, "pending", "resumed")


def cancel(orders: Orders, run: Chosen) -> Outcome:
    """Call a run off; what was made of it stays."""
    status = run.status(orders.campaign, orders.config)
    if status not in (*OPEN, PAUSED):
        return Outcome(run.id, "same", f"is {status}")
    return orders.set_state(run, CANCELLED, "cancelled", forget=True)


@dataclass(frozen=True)
class Progress:
    """How far a campaign is. `left_s`: seconds until all is done at the speed of the last runs, if that is known."""

    states: Mapping[str, int]
    reasons: Sequence[tuple[str, int]]
    left_s: float | None = None

    @property
    def total(self) -> int:
        """All runs that were ever queued and not cancelled."""
        return sum(n for state, n in self.states.items() if state != CANCELLED)

    @property
    def done(self) -> int:
        """Those that are done."""
        return self.states.get("done", 0)


def progress(runs: Sequence[Chosen], config: Config, campaign: str, now: datetime) -> Progress:
    """Count a campaign's runs by state: as the documents say it, and `waiting` for what is pending with a pause."""
    states: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    ended: list[datetime] = []
    for run in runs:
        told = _status(run, config, campaign)
        state = str(told.get("status"))
        wait_until = run.part(campaign).get("wait_until")
        if state == "pending" and isinstance(wait_until, datetime) and wait_until > now:
            state = "waiting"
        states[state] += 1
        if state in ("failed", "waiting"):
            reasons[f"{state}: {told.get('reason')}"] += 1
        if state == "done" and isinstance(moment := told.get("time"), datetime):
            ended.append(moment)
    open_runs = sum(states[state] for state in ("pending", "waiting", "submitted", "running", "failed"))
    last = sorted(ended)[-RECENT:]
    took = (now - last[0]) if len(last) > 1 else timedelta()
    left_s = took.total_seconds() / len(last) * open_runs if took else None
    return Progress(dict(states), reasons.most_common(5), left_s)


def _status(run: Chosen, config: Config, campaign: str) -> Document:
    value: Any = status_holder(run.document, campaign, config).get("processing_status")
    return dict(value) if isinstance(value, Mapping) else {"status": value}
