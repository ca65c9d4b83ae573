"""What run documents say of runs in a list: read with care, since anything may stand in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from straxflow.config import LIVE, Config
from straxflow.rundb.client import Document
from straxflow.rundb.lapse import claim_lapsed
from straxflow.rundb.pending import scope
from straxflow.rundb.rundoc import (
    IDENTITY,
    ONLINE,
    Malformed,
    campaign_part,
    data_field,
    make_run_id,
    parse,
    status_field,
    status_holder,
    status_of,
)

ListState = Literal["taking", "new", "pending", "waiting", "working", "done", "failed", "held", "other"]
"""taking: no end yet. new: no state. waiting: pending, but not before a given time. working: claimed by a live
invocation. held: pending, with a tag that keeps it from being worked on. other: a state that an older tool wrote."""

STATES: tuple[ListState, ...] = ("working", "pending", "waiting", "failed", "done", "new", "held", "taking")
"""Those that can be asked for."""
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

    def __str__(self) -> str:
        return f"{self.host} pid {self.pid} ({'alive' if self.alive else 'dead or silent'})"


@dataclass(frozen=True)
class RunRow:
    """A run in a list. `bytes` of its live data (`estimated` from the rate if nobody counted them)."""

    run: str
    number: int | None
    state: str
    mode: str = ""
    detectors: Sequence[str] = ()
    start: datetime | None = None
    end: datetime | None = None
    bytes: int | None = None
    estimated: bool = False
    rate_mb_s: float | None = None
    tags: Sequence[str] = ()
    reason: str | None = None
    since: datetime | None = None
    failures: int = 0
    due: datetime | None = None
    claimant: Claimant | None = None
    products: Sequence[str] = ()
    """Those that this site has registered whole."""
    problem: str | None = None
    """What is malformed in its document."""

    @property
    def seconds(self) -> float | None:
        """Length of the run, s."""
        return (self.end - self.start).total_seconds() if self.start and self.end else None


def row_of(document: Document, config: Config, campaign: str, moment: datetime) -> RunRow:
    """A run as its document tells it; whatever is malformed is left out, and the first of it named."""
    number = document.get("number")
    number = number if isinstance(number, int) and not isinstance(number, bool) else None
    start, end = time_of(document.get("start")), time_of(document.get("end"))
    problem = None
    try:
        run = make_run_id(document, config, "")
    except Malformed:
        run = ""
    if document.get("end") is not None or number is None or start is None:
        try:
            parse(document, config, campaign)
        except Malformed as error:
            problem = str(error)
    part = campaign_part(document, campaign)
    claimant = claimant_of(part, moment, config.claim.lease_s)
    tags = tuple(tag for t in _list(document.get("tags")) if isinstance(t, Mapping) and (tag := text(t.get("name"))))
    due = time_of(part.get("wait_until")) or time_of(part.get("due"))
    waits = due is not None and due > moment
    state = _state(document, config, campaign, claimant, tags, waits)
    told = status_holder(document, campaign, config).get("processing_status")
    told = told if isinstance(told, Mapping) else {}
    reason = None if claimant and claimant.alive else text(told.get("reason"))
    if claimant and not claimant.alive:
        reason = f"the invocation that claimed it ({claimant.batch}, on {claimant.host}) is dead or silent"
    if state == "other":
        status = status_of(document, campaign, config) or ""
        reason = f"{status}: {reason}" if reason else status
    entries = [e for e in _list(_below(document, data_field(campaign, config))) if isinstance(e, Mapping)]
    rate = _rate(document.get("rate"))
    size, seconds = _live_bytes(entries), (end - start).total_seconds() if start and end else None
    estimated = size is None and rate is not None and seconds is not None
    if rate is None and size is not None and seconds:
        rate = size / 1e6 / seconds
    return RunRow(
        run=run,
        number=number,
        state=state,
        mode=text(document.get("mode")) or "",
        detectors=tuple(d for v in _list(document.get("detectors")) if (d := text(v))),
        start=start,
        end=end,
        bytes=int(rate * 1e6 * seconds) if estimated and rate is not None and seconds is not None else size,
        estimated=estimated,
        rate_mb_s=rate,
        tags=tags,
        reason=reason,
        since=time_of(told.get("time")),
        failures=_count(part.get("failures")),
        due=due if waits else None,
        claimant=claimant,
        products=tuple(_registered(entries, config, campaign)),
        problem=problem,
    )


def _state(
    document: Document, config: Config, campaign: str, claimant: Claimant | None, tags: Sequence[str], waits: bool
) -> ListState:
    status = status_of(document, campaign, config)
    if claimant:
        return "working" if claimant.alive else "pending"
    if status in ("done", "failed"):
        return "done" if status == "done" else "failed"
    if document.get("end") is None:
        return "taking"
    if status == "pending":
        return "held" if set(tags) & set(config.runs.tags.leave_alone) else "waiting" if waits else "pending"
    return "new" if status is None else "other"


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


def query_of(state: str, config: Config, campaign: str, moment: datetime) -> Document:
    """The query for runs of a state of a list, or of one that an older tool wrote."""
    ours, field = f"straxflow.{campaign}", status_field(campaign, config)

    def word(text: str) -> Document:
        return {"$or": [{field: text}, {f"{field}.status": text}]}

    free: Document = {f"{ours}.claim.batch": {"$exists": False}}
    not_held: Document = {"tags.name": {"$nin": config.runs.tags.leave_alone}}
    dead: Document = {f"{ours}.claim.batch": {"$exists": True}}
    queries: dict[str, Document] = {
        "working": {f"{ours}.claim.batch": {"$exists": True}},
        # whether a claim's owner is dead is told by a look at the document
        "pending": {
            "$or": [{**word("pending"), **free, **not_held, f"{ours}.wait_until": {"$not": {"$gt": moment}}}, dead]
        },
        "waiting": {**word("pending"), **free, **not_held, f"{ours}.wait_until": {"$gt": moment}},
        "held": {**word("pending"), **free, "tags.name": {"$in": config.runs.tags.leave_alone}},
        "failed": {**word("failed"), **free},
        "done": {**word("done"), **free},
        "new": {field: None, "end": {"$ne": None}, **free},
        "taking": {"end": None, field: {"$nin": ["done", "failed"]}, **free},
    }
    return queries.get(state) or word(state)


def projection(campaign: str, config: Config) -> dict[str, int]:
    """The fields that a row needs; of the data entries, which can be many, only what is small."""
    fields = [*IDENTITY, "start", "end", "detectors", "rate", "tags.name", "processing_status"]
    ours = ["claim", "failures", "due", "wait_until", "processing_status", "products"]
    data = data_field(campaign, config)
    entry = (f"{data}.{name}" for name in ("type", "host", "size_mb", "campaign"))
    return dict.fromkeys([*fields, *entry, *(f"straxflow.{campaign}.{name}" for name in ours)], 1)


def in_scope(config: Config) -> Document:
    """Only the runs that this site may touch, whatever their tags."""
    return {"number": scope(config)["number"]}


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


def _registered(entries: Sequence[Mapping[str, Any]], config: Config, campaign: str) -> Iterator[str]:
    """Products all of whose data types have an entry for this site's store."""
    hosts = config.store_hosts
    there = {e.get("type") for e in entries if e.get("host") in hosts and (e.get("campaign") or ONLINE) == campaign}
    return (name for name in config.products if all(t in there for t in config.targets(name)))


def _live_bytes(entries: Sequence[Mapping[str, Any]]) -> int | None:
    sizes = [e["size_mb"] for e in entries if e.get("type") == LIVE and _is_number(e.get("size_mb"))]
    return int(max(sizes) * 1e6) if sizes else None


def _rate(value: object) -> float | None:
    """The DAQ's average rate over all detectors, MB/s."""
    averages = [r.get("avg") for r in value.values() if isinstance(r, Mapping)] if isinstance(value, Mapping) else []
    found = [float(a) for a in averages if isinstance(a, (int, float)) and _is_number(a)]
    return sum(found) if found else None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e15


def _below(document: Mapping[str, Any], path: str) -> object:
    value: object = document
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
