"""Which runs are pending: read-only, the most wanted first, by indexed queries."""

from __future__ import annotations

import heapq
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from typing import Any

from pymongo import DESCENDING

from straxflow.config import Config
from straxflow.rundb.client import Document, RunDb
from straxflow.rundb.gate import OPEN, Gate, look
from straxflow.rundb.lapse import claim_lapsed
from straxflow.rundb.rundoc import IDENTITY, ONLINE, Malformed, Run, campaign_part, parse, status_field
from straxflow.rundb.selection import Selection

log = logging.getLogger(__name__)

BLOCKS = (20, 500)
"""Documents that are read at once, at least and at most."""

UNFORESEEN = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What an odd document may come to: that must not keep all others waiting."""

INDEXES = (
    [("number", DESCENDING)],
    [("processing_status", 1), ("number", DESCENDING)],
    [("processing_status.status", 1), ("number", DESCENDING)],
    [("data.host", 1), ("data.type", 1), ("number", DESCENDING)],
    [("tags.name", 1), ("number", DESCENDING)],
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
    products: list[str] | None = None
    """The products to make of it; None: all that its mode has."""


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


def scope(config: Config) -> Document:
    """The part of every query that keeps straxflow to the runs it was given."""
    return Selection(config, ONLINE, datetime.now(UTC)).scope()


def candidates(
    db: RunDb,
    config: Config,
    campaign: str,
    problem: Callable[[str], None] = log.warning,
    gate: Gate = OPEN,
    wanted: int = BLOCKS[1],
    claimed: Iterable[Document] | None = None,
) -> Iterator[Candidate]:
    """Runs that may be claimed now: those with the tag `prioritize`, then all others, newest first.

    Malformed documents are told to `problem` and passed over. Who takes only the first ones says how many are `wanted`:
    not many more are read then, however many there are. `claimed` are the documents of claimed runs, newest first,
    from who has asked for them.
    """
    if gate.shut:
        return
    selection = Selection(config, campaign, db.now(), gate)
    either = {"$or": selection.pending()}
    dead = _abandoned(_claimed(db, selection) if claimed is None else claimed, selection, problem)
    block = min(max(wanted, BLOCKS[0]), BLOCKS[1])
    urgent = [found for found in dead if selection.urgent(found[1])]
    found = chain(
        _newest(urgent, _newest_first(db, {**selection.first(), **either}, either, campaign, block, problem)),
        _newest(dead, _newest_first(db, either, either, campaign, block, problem)),
    )
    for _, document, branch in _told_once(db, config, found, problem, block):
        run = _ready(document, selection, problem)
        if run is not None:
            token = run.campaign(campaign).get("token")
            guard = {"_id": run.object_id, **branch, f"straxflow.{campaign}.token": token}
            yield Candidate(run, guard, selection.products(run))


def anything_due(
    db: RunDb,
    config: Config,
    campaign: str,
    alive: Collection[str] = (),
    available: Callable[[str], bool] = lambda _: True,
) -> Due:
    """Whether a claim would find anything now, for idle polls: one indexed query that reads a few small fields.

    `alive` are batches whose invocations the caller knows to live: their claims need not be looked at; `available`
    tells whether this site can do anything for a run. Only where something is due, what may hold it up is looked at
    too: some small queries, the disks, and a remote store's disk at most every 30 s.
    """
    # the claim, which decides, asks for the database's own time
    selection = Selection(config, campaign, db.about_now())
    run = _any_due(db, selection, alive, available)
    if run is None:
        return Due(None)
    gate = look(db, config, campaign)
    if gate.shut:
        return Due(run, "; ".join(gate.shut))
    if gate.level == "work":
        return Due(run)
    allowed = _any_due(db, replace(selection, gate=gate), alive, available)
    return Due(allowed) if allowed else Due(run, f"{gate.live} (daq.while_live: {gate.level})")


def _any_due(db: RunDb, selection: Selection, alive: Collection[str], available: Callable[[str], bool]) -> str | None:
    config, campaign = selection.config, selection.campaign
    # unlike a claim, a poll has nobody to tell of an end that is no date
    ended = {"end": {"$lte": selection.now - timedelta(seconds=config.runs.settle_s)}}
    either = {"$or": [{"$and": [branch, ended]} for branch in (*selection.pending(), selection.claimed(alive))]}
    found: Iterator[Found] = (
        (document["number"], document, {})
        for document in _numbered(db.runs.find(either, _few_fields(config, campaign)).batch_size(BLOCKS[0]))
        if not (claim := campaign_part(document, campaign).get("claim"))
        or (isinstance(claim, Mapping) and claim_lapsed(claim, selection.now, config.claim.lease_s))
    )
    for _, document, _ in _told_once(db, config, found, lambda _: None, BLOCKS[0]):
        run = _ready(document, selection, lambda _: None)
        if run is not None and available(run.id):
            return run.id
    return None


def _ready(document: Document, selection: Selection, problem: Callable[[str], None]) -> Run | None:
    """The run of a document, if it is whole and nothing speaks against it."""
    if document.get("end") is None:
        return None
    run = next(readable([document], selection.config, selection.campaign, problem), None)
    try:
        return run if run is not None and not selection.against(run) else None
    except UNFORESEEN as error:
        problem(f"run {document['number']}: its document cannot be judged ({_bug(error)}); the run is passed over")
        return None


def readable(
    documents: Iterable[Document], config: Config, campaign: str, problem: Callable[[str], None]
) -> Iterator[Run]:
    """The runs of documents; malformed ones are told to `problem` and passed over."""
    for document in documents:
        try:
            yield parse(document, config, campaign)
        except Malformed as error:
            problem(f"{error}; the run is passed over")
        except UNFORESEEN as error:
            number = document.get("number")
            problem(f"run {number}: its document cannot be read ({_bug(error)}); the run is passed over")


def _bug(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _numbered(documents: Iterable[Document], problem: Callable[[str], None] = lambda _: None) -> Iterator[Document]:
    """Documents that can be put in order of their numbers; queries by number also find lists with one in them."""
    for document in documents:
        number = document.get("number")
        if isinstance(number, (int, float)) and not isinstance(number, bool) and number == number:
            yield document
        else:
            problem(_odd_number(document))


def _odd_number(document: Document) -> str:
    return (
        f"run document {document.get('_id')}: number: expected an integer, found {document.get('number')!r}; "
        "it is passed over"
    )


def malformed_numbers(db: RunDb) -> list[str]:
    """Pending run documents that no query by number finds, as messages."""
    odd = {
        "$or": [{"processing_status": "pending"}, {"processing_status.status": "pending"}],
        "number": {"$not": {"$type": "number"}},
    }
    return [_odd_number(document) for document in db.runs.find(odd, {"number": 1}).limit(20)]


def projection(campaign: str) -> dict[str, int]:
    """What is read of a run document to work on it: all but the data entries."""
    fields = "start end detectors source tags daq_config rate processing_status straxflow"
    return dict.fromkeys([*IDENTITY, *fields.split()], 1)


def _few_fields(config: Config, campaign: str) -> dict[str, int]:
    """What it takes to tell whether a run would be claimed."""
    claim = [f"straxflow.{campaign}.claim.{name}" for name in ("owner", "renewed", "lease_s")]
    state = status_field(campaign, config)
    return dict.fromkeys([*IDENTITY, "start", "end", "detectors", "tags.name", state, *claim], 1)


Found = tuple[int, Document, Document]


def _newest(*streams: Iterable[Found]) -> Iterator[Found]:
    return heapq.merge(*streams, key=lambda item: -item[0])


def _newest_first(
    db: RunDb, query: Document, branch: Document, campaign: str, block: int, problem: Callable[[str], None]
) -> Iterator[Found]:
    cursor = db.runs.find(query, projection(campaign)).sort("number", DESCENDING).batch_size(min(block, 200))
    for document in _numbered(cursor, problem):
        yield document["number"], document, branch


def _told_once(
    db: RunDb, config: Config, found: Iterable[Found], problem: Callable[[str], None], block: int
) -> Iterator[Found]:
    """Pass over numbers that several documents (of an experiment) have, whatever state the others are in.

    The first `block` of them are looked at together, then more and more.
    """
    rows = iter(found)
    told = set[tuple[object, int]]()

    def key(document: Document) -> tuple[object, int]:
        return (str(document.get("experiment")) if config.experiments else None, document["number"])

    # looked up block by block: a query for each run would take longer than all the others
    while some := list(islice(rows, block)):
        block = min(2 * block, BLOCKS[1])
        numbers = [number for number, _, _ in some]
        wanted = {"number": {"$gte": min(numbers), "$lte": max(numbers), "$in": numbers}}
        times = Counter(map(key, _numbered(db.runs.find(wanted, {"number": 1, "experiment": 1}))))
        for number, document, branch in some:
            if key(document) in told:
                continue
            told.add(key(document))
            if times[key(document)] == 1:
                yield number, document, branch
            else:
                problem(f"run {number}: two run documents have this number; remove the wrong one, it is passed over")


def held_and_claimed(db: RunDb, config: Config, campaign: str, batch: str) -> tuple[list[Document], list[Document]]:
    """The documents of the runs that `batch` holds, and of those that others have claimed; by one query."""
    selection = Selection(config, campaign, db.now())
    ours = {f"straxflow.{campaign}.claim.batch": batch}
    held: list[Document] = []
    others: list[Document] = []
    for document in _claimed(db, selection, ours):
        claim = campaign_part(document, campaign).get("claim")
        (held if isinstance(claim, Mapping) and claim.get("batch") == batch else others).append(document)
    return held, others


def _claimed(db: RunDb, selection: Selection, *more: Document) -> Iterable[Document]:
    either = {"$or": [selection.claimed(), *more]}
    return db.runs.find(either, projection(selection.campaign)).sort("number", DESCENDING)


def _abandoned(claimed: Iterable[Document], selection: Selection, problem: Callable[[str], None]) -> list[Found]:
    """Claimed runs whose owner is provably dead, or silent for longer than its lease; newest first."""
    campaign = selection.campaign
    found = []
    for document in _numbered(claimed, problem):
        claim: Any = campaign_part(document, campaign).get("claim")
        if not isinstance(claim, Mapping):
            problem(f"run {document['number']}: straxflow.{campaign}.claim is no claim; remove it")
            continue
        if not claim_lapsed(claim, selection.now, selection.config.claim.lease_s):
            continue
        branch = {f"straxflow.{campaign}.claim.{name}": claim.get(name) for name in ("batch", "renewed")}
        found.append((document["number"], document, branch))
    return found
