"""What the run database tells the page: bounded queries, read only; never the whole collection."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from pymongo import ASCENDING

from straxflow.config import Config
from straxflow.reports.documents import (
    Claimant,
    RunRow,
    claimant_of,
    in_scope,
    projection,
    query_of,
    row_of,
    text,
    time_of,
)
from straxflow.reports.left import left_to_a_person
from straxflow.reports.runtable import Choice, from_database
from straxflow.rundb.client import Document, RunDb
from straxflow.rundb.lapse import claim_lapsed
from straxflow.rundb.rundoc import IDENTITY, Malformed, campaign_part, make_run_id
from straxflow.rundb.switch import Switch, read_switch

COUNTED = ("pending", "waiting", "held", "failed", "done", "new")
MOST_CLAIMS = 5000
MOST_FAILURES = 20
MOST_WATCHERS = 20


@dataclass(frozen=True)
class Invocation:
    """An invocation of snakemake that holds runs."""

    batch: str
    host: str
    pid: int | None
    alive: bool
    runs: int
    claimed: datetime | None
    renewed: datetime | None


@dataclass(frozen=True)
class Watcher:
    """The watcher that acts for a site, as its lease tells."""

    site: str
    user: str | None
    host: str
    pid: int | None
    since: datetime | None
    seen: datetime | None
    alive: bool
    ended: datetime | None


@dataclass(frozen=True)
class DatabaseView:
    """The run database at a moment of its own clock."""

    moment: datetime | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    switch: Switch | None = None
    oldest: RunRow | None = None
    due: Mapping[str, datetime | None] = field(default_factory=dict)
    """When the next waiting and the next failed run may be tried again."""
    newest: Sequence[RunRow] = ()
    failures: Sequence[RunRow] = ()
    invocations: Sequence[Invocation] = ()
    watchers: Sequence[Watcher] = ()
    held: Mapping[str, bool] = field(default_factory=dict)
    """Runs that are claimed, and whether by a live invocation."""


def look(db: RunDb, config: Config, campaign: str) -> DatabaseView:
    """Read what the overview shows."""
    moment = db.now()
    claims = _claims(db, config, campaign, moment)
    alive = sum(claim.alive for claim in claims.values())

    def query(state: str) -> Document:
        return {"$and": [in_scope(config), query_of(state, config, campaign, moment)]}

    counts = {state: db.runs.count_documents(query(state)) for state in COUNTED}
    counts["left"] = db.runs.count_documents({"$and": [in_scope(config), left_to_a_person(config, campaign)]})
    # a claimed run may be pending again: only a look at its claim tells, and that was taken above
    counts |= {"working": alive, "pending": max(counts["pending"] - alive, 0)}
    return DatabaseView(
        moment=moment,
        counts=counts,
        switch=read_switch(db, config),
        oldest=_oldest(db, config, campaign, query("pending"), len(claims)) if counts["pending"] else None,
        due={
            state: _next(db, query(state), f"straxflow.{campaign}.{key}", moment) if counts[state] else None
            for state, key in (("waiting", "wait_until"), ("failed", "due"))
        },
        newest=rows(db, config, campaign, Choice(), config.dashboard.runs),
        failures=rows(db, config, campaign, Choice("failed"), MOST_FAILURES) if counts["failed"] else [],
        invocations=_invocations(claims.values()),
        watchers=_watchers(db, config, campaign, moment),
        held={run: claim.alive for run, claim in claims.items()},
    )


def rows(db: RunDb, config: Config, campaign: str, choice: Choice, most: int) -> list[RunRow]:
    """Runs as asked for, newest first."""
    return list(islice(from_database(db, config, campaign, choice), most))


def _claims(db: RunDb, config: Config, campaign: str, moment: datetime) -> dict[str, Claimant]:
    query = {**in_scope(config), **query_of("working", config, campaign, moment)}
    fields = dict.fromkeys([*IDENTITY, f"straxflow.{campaign}.claim"], 1)
    found = {}
    for document in db.runs.find(query, fields).limit(MOST_CLAIMS):
        claim = claimant_of(campaign_part(document, campaign), moment, config.claim.lease_s)
        try:
            run = make_run_id(document, config, "")
        except Malformed:
            run = str(document.get("_id"))
        if claim:
            found[run] = claim
    return found


def _invocations(claims: Iterable[Claimant]) -> list[Invocation]:
    by_batch: dict[str, list[Claimant]] = defaultdict(list)
    for claim in claims:
        by_batch[claim.batch].append(claim)
    found = [
        Invocation(
            batch=batch,
            host=same[0].host,
            pid=same[0].pid,
            alive=any(c.alive for c in same),
            runs=len(same),
            claimed=min((c.claimed for c in same if c.claimed), default=None),
            renewed=max((c.renewed for c in same if c.renewed), default=None),
        )
        for batch, same in by_batch.items()
    ]
    return sorted(found, key=lambda i: i.batch, reverse=True)


def _watchers(db: RunDb, config: Config, campaign: str, moment: datetime) -> list[Watcher]:
    found = []
    for lease in db.ours("watchers").find({"campaign": campaign}).limit(MOST_WATCHERS):
        owner = lease.get("owner")
        known = owner if isinstance(owner, Mapping) else {}
        pid = known.get("pid")
        found.append(
            Watcher(
                site=text(lease.get("site")) or "?",
                user=text(lease.get("user")),
                host=text(known.get("host")) or "?",
                pid=pid if isinstance(pid, int) else None,
                since=time_of(lease.get("since")),
                seen=time_of(lease.get("renewed")),
                alive=bool(known) and not claim_lapsed(lease, moment, config.claim.lease_s),
                ended=time_of(lease.get("ended")),
            )
        )
    return sorted(found, key=lambda watcher: watcher.site != config.site)


def _oldest(db: RunDb, config: Config, campaign: str, query: Document, claimed: int) -> RunRow | None:
    """The pending run that was taken first."""
    moment = db.now()
    found = db.runs.find(query, projection(campaign, config)).sort("number", ASCENDING).limit(claimed + 1)
    oldest = (row_of(document, config, campaign, moment) for document in found)
    return next((row for row in oldest if row.state == "pending"), None)


def _next(db: RunDb, query: Document, key: str, moment: datetime) -> datetime | None:
    """The earliest time to come in a field of the runs that a query finds."""
    found = db.runs.find_one({"$and": [query, {key: {"$gt": moment}}]}, {key: 1}, sort=[(key, ASCENDING)])
    value: object = found
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return time_of(value)
