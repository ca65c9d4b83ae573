"""What run documents say of runs, for the page: read with care, since anything may stand in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from straxflow.config import Config
from straxflow.rundb.client import Document
from straxflow.rundb.pending import claim_lapsed, scope
from straxflow.rundb.rundoc import (
    Malformed,
    campaign_part,
    make_run_id,
    status_field,
    status_holder,
    status_of,
)

PageState = Literal["taking", "new", "pending", "waiting", "working", "done", "failed", "held", "other"]
"""taking: no end yet. new: no state. waiting: pending, but not before a given time. held: pending, with a tag that
keeps it from being worked on. other: a state that an older tool wrote."""

FILTERS: tuple[PageState, ...] = ("working", "pending", "waiting", "failed", "done", "new", "held")
LONGEST = 2000
"""Of a text from a document, characters."""


@dataclass(frozen=True)
class Claimant:
    """Who works on a run."""

    batch: str
    host: str
    pid: int | None
    alive: bool
    claimed: datetime | None
    renewed: datetime | None


@dataclass(frozen=True)
class RunRow:
    """A run in a list."""

    run: str
    number: int | None
    state: str
    mode: str = ""
    start: datetime | None = None
    end: datetime | None = None
    reason: str | None = None
    since: datetime | None = None
    failures: int = 0
    due: datetime | None = None
    tags: Sequence[str] = ()
    claimant: Claimant | None = None


def row_of(document: Mapping[str, Any], config: Config, campaign: str, moment: datetime) -> RunRow:
    """A run as its document tells it; whatever is malformed is left out."""
    number = document.get("number")
    number = number if isinstance(number, int) and not isinstance(number, bool) else None
    try:
        run = make_run_id(document, config, "")
    except Malformed:
        run = ""
    part = campaign_part(document, campaign)
    claimant = claimant_of(part, moment, config.claim.lease_s)
    told = _status(document, campaign, config)
    tags = tuple(name for t in _list(document.get("tags")) if isinstance(t, Mapping) and (name := text(t.get("name"))))
    due = time_of(part.get("wait_until")) or time_of(part.get("due"))
    waits = due is not None and due > moment
    end = time_of(document.get("end"))
    state: PageState
    status = status_of(document, campaign, config)
    if claimant:
        state = "working" if claimant.alive else "pending"
    elif status in ("done", "failed"):
        state = "done" if status == "done" else "failed"
    elif end is None:
        state = "taking"
    elif status == "pending":
        skipped = set(tags) & set(config.runs.skip_tags)
        state = "held" if skipped else "waiting" if waits else "pending"
    else:
        state = "new" if status is None else "other"
    reason = None if claimant and claimant.alive else text(told.get("reason"))
    if claimant and not claimant.alive:
        reason = f"the invocation that claimed it ({claimant.batch}, on {claimant.host}) is dead or silent"
    if state == "other":
        reason = f"{status}: {reason}" if reason else status
    return RunRow(
        run=run,
        number=number,
        state=state,
        mode=text(document.get("mode")) or "",
        start=time_of(document.get("start")),
        end=end,
        reason=reason,
        since=time_of(told.get("time")),
        failures=_count(part.get("failures")),
        due=due if waits else None,
        tags=tags,
        claimant=claimant,
    )


def claimant_of(part: Mapping[str, Any], moment: datetime, lease_s: float) -> Claimant | None:
    """Who holds the claim in straxflow's part of a run document."""
    claim = part.get("claim")
    if not isinstance(claim, Mapping) or "batch" not in claim:
        return None
    owner = claim.get("owner")
    owner = owner if isinstance(owner, Mapping) else {}
    pid = owner.get("pid")
    return Claimant(
        batch=text(claim["batch"]) or "?",
        host=text(owner.get("host")) or "?",
        pid=pid if isinstance(pid, int) else None,
        alive=not claim_lapsed(claim, moment, lease_s),
        claimed=time_of(claim.get("claimed")),
        renewed=time_of(claim.get("renewed")),
    )


def query_of(state: str | None, mode: str | None, config: Config, campaign: str, moment: datetime) -> Document:
    """The query for runs of a state and mode (None: all)."""
    query: Document = {"number": scope(config)["number"]}
    if mode:
        query["mode"] = mode
    ours, field = f"straxflow.{campaign}", status_field(campaign, config)
    free: Document = {f"{ours}.claim.batch": {"$exists": False}}
    not_held: Document = {"tags.name": {"$nin": config.runs.skip_tags}}
    pending: Document = {"$or": [{field: "pending"}, {f"{field}.status": "pending"}], **free}
    queries: dict[str, Document] = {
        "working": {f"{ours}.claim.batch": {"$exists": True}},
        "pending": {**pending, **not_held, f"{ours}.wait_until": {"$not": {"$gt": moment}}},
        "waiting": {**pending, **not_held, f"{ours}.wait_until": {"$gt": moment}},
        "held": {**pending, "tags.name": {"$in": config.runs.skip_tags}},
        "failed": {"$or": [{field: "failed"}, {f"{field}.status": "failed"}], **free},
        "done": {"$or": [{field: "done"}, {f"{field}.status": "done"}], **free},
        "new": {field: None, "end": {"$exists": True}, **free},
    }
    return query | queries[state] if state else query


def projection(campaign: str) -> dict[str, int]:
    """The fields that a row needs; never the data entries, which can be many."""
    fields = ["number", "name", "mode", "start", "end", "tags.name", "processing_status"]
    ours = ["claim", "failures", "due", "wait_until", "processing_status"]
    return dict.fromkeys([*fields, *(f"straxflow.{campaign}.{name}" for name in ours)], 1)


def text(value: object) -> str | None:
    """Bounded text of a value that should be text."""
    if value is None or isinstance(value, (Mapping, list)):
        return None
    return str(value)[:LONGEST]


def time_of(value: object) -> datetime | None:
    """A date, in UTC; None for anything else."""
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _status(document: Mapping[str, Any], campaign: str, config: Config) -> Mapping[str, Any]:
    value = status_holder(document, campaign, config).get("processing_status")
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
