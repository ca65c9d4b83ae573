"""The runs that a person asks for, newest first: from the run database, or from the state folder while it is away."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase

from pymongo import DESCENDING

from straxflow.config import Config
from straxflow.errors import StraxflowError
from straxflow.receipts import State
from straxflow.reports.documents import STATES, Claimant, RunRow, in_scope, projection, query_of, row_of
from straxflow.reports.standings import Standings
from straxflow.rundb.client import Document, RunDb
from straxflow.rundb.rundoc import status_of
from straxflow.rundb.selection import tagged
from straxflow.runlist import RunList


@dataclass(frozen=True)
class Choice:
    """Which runs are asked for; what is not given does not matter."""

    state: str | None = None
    modes: tuple[str, ...] = ()
    detectors: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    runs: RunList | None = None
    since: datetime | None = None
    until: datetime | None = None

    def query(self, config: Config, campaign: str, moment: datetime) -> Document:
        """The query that finds them (of some states a few more than those)."""
        parts: list[Document] = [self.runs.query() if self.runs else in_scope(config)]
        if self.state:
            parts.append(query_of(self.state, config, campaign, moment))
        if self.modes:
            parts.append({"$or": [{"mode": {"$regex": _pattern(mode)}} for mode in self.modes]})
        if self.detectors:
            parts.append({"detectors": {"$in": list(self.detectors)}})
        if self.tags:
            parts.append(tagged(self.tags))
        times = {"$gte": self.since, "$lt": self.until}
        if given := {key: value for key, value in times.items() if value}:
            parts.append({"start": given})
        return parts[0] if len(parts) == 1 else {"$and": parts}

    def fits(self, row: RunRow) -> bool:
        """Whether a run that was found elsewhere is one of them, as far as can be told without its document."""
        named = self.runs is None or self.runs.contains(-1 if row.number is None else row.number, row.run)
        return (
            named
            and self.state in (None, row.state)
            and (not self.modes or any(fnmatchcase(row.mode, mode) for mode in self.modes))
            and (not self.detectors or bool(set(self.detectors) & set(row.detectors)))
            and (self.since is None or (row.start is not None and row.start >= self.since))
            and (self.until is None or (row.start is not None and row.start < self.until))
        )


def from_database(db: RunDb, config: Config, campaign: str, choice: Choice) -> Iterator[RunRow]:
    """Rows from the run documents, newest first, as they are asked for."""
    moment = db.now()
    query = choice.query(config, campaign, moment)
    found = db.runs.find(query, projection(campaign, config)).sort("number", DESCENDING).batch_size(200)
    for document in found:
        row = row_of(document, config, campaign, moment)
        status = status_of(document, campaign, config)
        if choice.state is None or choice.state == row.state or (choice.state not in STATES and choice.state == status):
            yield row


def from_state(config: Config, state: State, choice: Choice) -> Iterator[RunRow]:
    """Rows from the receipts and attempts alone, newest first; tags are not known here."""
    standings = Standings(config, state, None)
    numbered: list[tuple[int, str]] = []
    for run in choice.runs.ids(config, state) if choice.runs else state.all_runs():
        digits = re.findall(r"[0-9]+", run)
        numbered.append((int(digits[-1][:18]) if digits else -1, run))
    for _, run in sorted(numbered, reverse=True):
        row = _row_of_receipts(standings, run)
        if choice.fits(row):
            yield row


def _row_of_receipts(standings: Standings, run: str) -> RunRow:
    brief = standings.brief(run)
    try:
        facts = standings.state.facts(run)
    except (StraxflowError, OSError):
        return RunRow(run, None, brief.state, reason=brief.reason)
    products = standings.products(run, facts.mode)
    live = next((p.bytes for p in products if p.name == "live" and p.bytes), None)
    holder = brief.holder if brief.state == "working" else None
    return RunRow(
        run=run,
        number=facts.number,
        state=brief.state,
        mode=facts.mode,
        detectors=tuple(facts.detectors),
        start=facts.start,
        end=facts.end,
        bytes=live,
        rate_mb_s=live / 1e6 / facts.seconds if live and facts.seconds else None,
        reason=f"{brief.reason} (log: {brief.log})" if brief.log else brief.reason,
        claimant=Claimant(holder.batch, holder.host, holder.pid, True, None, None) if holder else None,
        products=tuple(p.name for p in products if p.name != "live" and p.reached == "registered"),
    )


def _pattern(glob: str) -> str:
    """A pattern with * and ? as a regular expression of the database's."""
    return "^" + re.escape(glob).replace(r"\*", ".*").replace(r"\?", ".") + "$"
