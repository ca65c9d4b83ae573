"""What the run database tells the page: bounded queries, read only; never the whole collection."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from pymongo import ASCENDING, DESCENDING

from straxflow.config import Config
from straxflow.dashboard.documents import FILTERS, RunRow, claimant_of, projection, query_of, row_of, text, time_of
from straxflow.rundb.client import Document, RunDb
from straxflow.rundb.pending import claim_lapsed
from straxflow.rundb.rundoc import campaign_part
from straxflow.rundb.switch import Switch, read_switch

MOST_CLAIMS = 2000
MOST_FAILURES = 50
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
    next_due: datetime | None = None
    newest: Sequence[RunRow] = ()
    failures: Sequence[RunRow] = ()
    invocations: Sequence[Invocation] = ()
    watchers: Sequence[Watcher] = ()
    held: Mapping[str, bool] = field(default_factory=dict)
    """Runs that are claimed, and whether by a live invocation."""


def look(db: RunDb, config: Config, campaign: str) -> DatabaseView:
    """Read what the overview shows."""
    moment = db.now()
    counts: dict[str, int] = {
        state: db.runs.count_documents(query_of(state, None, config, campaign, moment)) for state in FILTERS
    }
    oldest = rows(db, config, campaign, "pending", limit=1, oldest_first=True) if counts["pending"] else []
    invocations, held = _invocations(db, config, campaign, moment)
    return DatabaseView(
        moment=moment,
        counts=counts,
        switch=read_switch(db, config),
        oldest=oldest[0] if oldest else None,
        next_due=_next_due(db, config, campaign, moment) if counts["waiting"] or counts["failed"] else None,
        newest=rows(db, config, campaign, limit=config.dashboard.runs),
        failures=rows(db, config, campaign, "failed", limit=MOST_FAILURES) if counts["failed"] else [],
        invocations=invocations,
        watchers=_watchers(db, config, campaign, moment),
        held=held,
    )


def rows(
    db: RunDb,
    config: Config,
    campaign: str,
    state: str | None = None,
    mode: str | None = None,
    limit: int = 100,
    oldest_first: bool = False,
) -> list[RunRow]:
    """Runs of a state and mode, newest first."""
    moment = db.now()
    query = query_of(state, mode, config, campaign, moment)
    order = ASCENDING if oldest_first else DESCENDING
    found = db.runs.find(query, projection(campaign)).sort("number", order).limit(limit)
    return [row_of(document, config, campaign, moment) for document in found]


def document_of(db: RunDb, query: Document) -> Document | None:
    """A whole run document, but for the lineages in its data entries, which fill pages."""
    return db.runs.find_one(query, {"data.meta": 0, "deleted_data.meta": 0})


def _invocations(
    db: RunDb, config: Config, campaign: str, moment: datetime
) -> tuple[list[Invocation], dict[str, bool]]:
    query = query_of("working", None, config, campaign, moment)
    by_batch = defaultdict(list)
    held = {}
    for document in db.runs.find(query, projection(campaign)).limit(MOST_CLAIMS):
        claimant = claimant_of(campaign_part(document, campaign), moment, config.claim.lease_s)
        if claimant is None:
            continue
        by_batch[claimant.batch].append(claimant)
        held[row_of(document, config, campaign, moment).run] = claimant.alive
    found = [
        Invocation(
            batch=batch,
            host=claimants[0].host,
            pid=claimants[0].pid,
            alive=any(c.alive for c in claimants),
            runs=len(claimants),
            claimed=min((c.claimed for c in claimants if c.claimed), default=None),
            renewed=max((c.renewed for c in claimants if c.renewed), default=None),
        )
        for batch, claimants in by_batch.items()
    ]
    return sorted(found, key=lambda i: i.batch, reverse=True), held


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


def _next_due(db: RunDb, config: Config, campaign: str, moment: datetime) -> datetime | None:
    """When the next waiting or failed run may be tried again."""
    times = []
    for state, name in (("waiting", "wait_until"), ("failed", "due")):
        key = f"straxflow.{campaign}.{name}"
        query = {**query_of(state, None, config, campaign, moment), key: {"$gt": moment}}
        found = db.runs.find_one(query, {key: 1}, sort=[(key, ASCENDING)])
        times.append(time_of(campaign_part(found or {}, campaign).get(name)))
    return min((t for t in times if t), default=None)
