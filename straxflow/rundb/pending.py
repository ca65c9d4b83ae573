"""Which runs are pending: read-only, newest first, by indexed queries."""

from __future__ import annotations

import fnmatch
import heapq
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from pymongo import DESCENDING

from straxflow.config import Config
from straxflow.owner import Owner
from straxflow.rundb.client import Document, RunDb
from straxflow.rundb.rundoc import IDENTITY, ONLINE, Malformed, Run, campaign_part, parse, status_field
from straxflow.rundb.switch import read_switch

log = logging.getLogger(__name__)

BLOCK = 500

INDEXES = (
    [("number", DESCENDING)],
    [("processing_status", 1), ("number", DESCENDING)],
    [("processing_status.status", 1), ("number", DESCENDING)],
    [("data.host", 1), ("data.type", 1), ("number", DESCENDING)],
)


def campaign_indexes(campaign: str) -> tuple[list[tuple[str, int]], ...]:
    """Indexes of a campaign's own fields."""
    ours = f"straxflow.{campaign}"
    own = [f"{ours}.processing_status.status", f"{ours}.processing_status"] if campaign != ONLINE else []
    states = [[(field, 1), ("number", DESCENDING)] for field in own]
    return ([(f"{ours}.claim.batch", 1)], [(f"{ours}.due", 1)], *states)


@dataclass(frozen=True)
class Candidate:
    """A run that may be claimed, and the condition under which it still may be when it is claimed."""

    run: Run
    condition: Document


def scope(config: Config) -> Document:
    """The part of every query that keeps straxflow to the runs it was given."""
    number: Document = {"$gte": config.runs.min_run_number}
    if config.runs.max_run_number is not None:
        number["$lte"] = config.runs.max_run_number
    if config.runs.numbers is not None:
        number["$in"] = config.runs.numbers
    query: Document = {"number": number, "tags.name": {"$nin": config.runs.skip_tags}}
    if config.experiments and config.experiments != "ALL":
        query["experiment"] = {"$regex": "|".join(map(fnmatch.translate, config.experiments))}
    if config.runs.detectors:
        query["detectors"] = {"$in": config.runs.detectors}
    return query


def _wanted(config: Config, campaign: str, now: datetime) -> list[Document]:
    """Why a run may be claimed, each reason a query of its own that an index serves."""
    ours = f"straxflow.{campaign}"
    unclaimed = {f"{ours}.claim.batch": {"$exists": False}}
    waited = {f"{ours}.wait_until": {"$not": {"$gt": now}}}
    field = status_field(campaign, config)
    reached = "reached " + " ".join(config.steps)
    branches: list[Document] = [
        {field: "pending", **unclaimed, **waited},
        {f"{field}.status": "pending", f"{field}.reason": {"$ne": reached}, **unclaimed, **waited},
        {
            f"{field}.status": "failed",
            f"{ours}.due": {"$lte": now},
            f"{ours}.failures": {"$lt": config.failures.give_up_after},
            **unclaimed,
        },
    ]
    if campaign == ONLINE:
        at_daq = {"data": {"$elemMatch": {"host": config.daq.host, "type": "live"}}}
        branches += [
            {"data.host": config.daq.host, field: None, **at_daq, **theirs, **unclaimed}
            for theirs in _untouched(config)
        ]
    return branches


def candidates(
    db: RunDb, config: Config, campaign: str, problem: Callable[[str], None] = log.warning
) -> Iterator[Candidate]:
    """Runs that may be claimed now, newest first; malformed documents are told to `problem` and passed over."""
    now = db.now()
    ours = f"straxflow.{campaign}"
    within = scope(config)
    either = {"$or": _wanted(config, campaign, now)}
    streams = [_newest_first(db, {**within, **either}, either, campaign), _abandoned(db, config, campaign, within)]
    for _, document, branch in _told_once(db, config, heapq.merge(*streams, key=lambda item: -item[0]), problem):
        run = _ready(document, config, campaign, now, problem)
        if run is not None:
            token = run.campaign(campaign).get("token")
            guard = {"_id": run.object_id, **branch, f"{ours}.token": token}
            yield Candidate(run, guard)


def _untouched(config: Config) -> list[Document]:
    """What the shared state says of runs that we have not touched: nothing, or what the tool that we shadow leaves."""
    states = config.shadow.states
    if not config.shadow.enabled or "*" in states:
        return [{}]
    return [{"processing_status": {"$in": states}}, {"processing_status.status": {"$in": states}}]


@dataclass(frozen=True)
class Due:
    """What an idle poll found."""

    run: str | None
    """A run that a claim would take now (any one); None: there is nothing to do."""
    held: str | None = None
    """Why nothing may be claimed all the same, and what to do."""

    @property
    def start(self) -> bool:
        """Whether an invocation should be started."""
        return self.run is not None and self.held is None


def anything_due(
    db: RunDb,
    config: Config,
    campaign: str,
    alive: Collection[str] = (),
    available: Callable[[str], bool] = lambda _: True,
) -> Due:
    """Whether a claim would find anything now, for idle polls: one indexed query that reads a few small fields.

    `alive` are batches whose invocations the caller knows to live: their claims need not be looked at; `available`
    tells whether this site can do anything for a run. Where something is due, two more small queries follow: whether
    its number is unique, and the switch.
    """
    now = db.now()
    claimed = {f"straxflow.{campaign}.claim.batch": {"$exists": True, "$nin": list(alive)}}
    reasons = [*_wanted(config, campaign, now), claimed]
    ended = {"end": {"$lte": now - timedelta(seconds=config.runs.settle_s)}}
    either = {"$or": [{**scope(config), **ended, **reason} for reason in reasons]}
    found: Iterator[Found] = (
        (document["number"], document, {})
        for document in db.runs.find(either, _few_fields(campaign)).batch_size(20)
        if not (claim := campaign_part(document, campaign).get("claim"))
        or claim_lapsed(claim, now, config.claim.lease_s)
    )
    for _, document, _ in _told_once(db, config, found, lambda _: None, block=20):
        run = _ready(document, config, campaign, now, lambda _: None)
        if run is not None and available(run.id):
            switch = read_switch(db, config)
            return Due(run.id, None if switch.on else switch.text)
    return Due(None)


def _ready(
    document: Document, config: Config, campaign: str, now: datetime, problem: Callable[[str], None]
) -> Run | None:
    """The run of a document, if it is whole, ended long enough ago and of a mode that is worked on."""
    if document.get("end") is None:
        return None
    run = next(readable([document], config, campaign, problem), None)
    if run is None:
        return None
    settled = run.facts.end + timedelta(seconds=config.runs.settle_s) <= now
    return run if settled and config.selects_mode(run.facts.mode) else None


def readable(
    documents: Iterable[Document], config: Config, campaign: str, problem: Callable[[str], None]
) -> Iterator[Run]:
    """The runs of documents; malformed ones are told to `problem` and passed over."""
    for document in documents:
        try:
            yield parse(document, config, campaign)
        except Malformed as error:
            problem(f"{error}; the run is passed over")


def malformed_numbers(db: RunDb) -> list[str]:
    """Pending run documents that no query by number finds, as messages."""
    odd = {
        "$or": [{"processing_status": "pending"}, {"processing_status.status": "pending"}],
        "number": {"$not": {"$type": "number"}},
    }
    return [
        f"run document {d['_id']}: number: expected an integer, found {d.get('number')!r}; it is passed over"
        for d in db.runs.find(odd, {"number": 1}).limit(20)
    ]


def _projection(campaign: str) -> dict[str, int]:
    fields = "start end detectors source tags daq_config rate processing_status straxflow"
    return dict.fromkeys([*IDENTITY, *fields.split()], 1)


def _few_fields(campaign: str) -> dict[str, int]:
    """What it takes to tell whether a run would be claimed."""
    claim = [f"straxflow.{campaign}.claim.{name}" for name in ("owner", "renewed", "lease_s")]
    return dict.fromkeys([*IDENTITY, "start", "end", *claim], 1)


Found = tuple[int, Document, Document]


def _newest_first(db: RunDb, query: Document, branch: Document, campaign: str) -> Iterator[Found]:
    cursor = db.runs.find(query, _projection(campaign)).sort("number", DESCENDING).batch_size(200)
    for document in cursor:
        yield document["number"], document, branch


def _told_once(
    db: RunDb, config: Config, found: Iterable[Found], problem: Callable[[str], None], block: int = BLOCK
) -> Iterator[Found]:
    """Pass over numbers that several documents (of an experiment) have, whatever state the others are in."""
    rows = iter(found)
    told = set[tuple[object, int]]()

    def key(document: Document) -> tuple[object, int]:
        return (document.get("experiment") if config.experiments else None, document["number"])

    # looked up block by block: a query for each run would take longer than all the others
    while some := list(islice(rows, block)):
        wanted = {"number": {"$in": [number for number, _, _ in some]}}
        times = Counter(map(key, db.runs.find(wanted, {"number": 1, "experiment": 1})))
        for number, document, branch in some:
            if key(document) in told:
                continue
            told.add(key(document))
            if times[key(document)] == 1:
                yield number, document, branch
            else:
                problem(f"run {number}: two run documents have this number; remove the wrong one, it is passed over")


def _abandoned(db: RunDb, config: Config, campaign: str, within: Document) -> list[Found]:
    """Claimed runs whose owner is provably dead, or silent for longer than its lease."""
    batch = f"straxflow.{campaign}.claim.batch"
    now = db.now()
    found = []
    query = {**within, batch: {"$exists": True}}
    for document in db.runs.find(query, _projection(campaign)).sort("number", DESCENDING):
        claim: Any = campaign_part(document, campaign).get("claim")
        if not claim_lapsed(claim, now, config.claim.lease_s):
            continue
        renewed = claim.get("renewed") if isinstance(claim, dict) else None
        branch = {batch: claim["batch"], f"straxflow.{campaign}.claim.renewed": renewed}
        found.append((document["number"], document, branch))
    return found


def claim_lapsed(claim: Any, now: Any, default_lease_s: float) -> bool:
    """Whether a claim may be taken over: its owner is provably dead, or its lease is over."""
    try:
        owner = Owner.from_dict(claim["owner"])
        lease = timedelta(seconds=float(claim.get("lease_s", default_lease_s)))
        return owner.is_dead() or claim["renewed"] + lease < now
    except (KeyError, TypeError, ValueError):
        return True
