"""Documents brought in line with receipts: what is done is told by the receipts, what is wanted by people.

Only states that this site's straxflow wrote itself are ever changed, and only of runs that nobody has claimed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Literal, TypeVar

from pymongo import DESCENDING

from straxflow import attempts
from straxflow.config import Config
from straxflow.errors import StraxflowError
from straxflow.owner import this_host
from straxflow.plan import Standing, standing
from straxflow.progress import RELEASE, ProductState, product_states
from straxflow.receipts import State
from straxflow.rundb import history
from straxflow.rundb.asked import left_out_of
from straxflow.rundb.client import Document, RunDb
from straxflow.rundb.pending import scope
from straxflow.rundb.rundoc import Malformed, Run, parse, query_for, status_field, status_holder
from straxflow.rundb.states import (
    RUNNING,
    STATUS,
    SUBMITTED,
    details,
    is_ours,
    other_fields,
    status_value,
)
from straxflow.runlist import RunList

BATCH = "sync"
"""In place of a batch in the states that are written here."""
EVER = datetime(1970, 1, 1, tzinfo=UTC)

NOT_NEEDED = dict.fromkeys(("data", "deleted_data", "comments"), 0)

Kind = Literal["state", "downgrade", "details"]


@dataclass(frozen=True)
class Change:
    """What is to be written to one document: its new state (None: stays), and fields of detail."""

    run: str
    kind: Kind
    before: str | None
    after: str | None
    reason: str | None
    guard: Document = field(repr=False)
    fields: Document = field(repr=False)

    @property
    def text(self) -> str:
        """In words."""
        if self.kind == "details":
            return f"details of {len(self.fields)} fields"
        return f"{self.before or 'no state'} becomes {self.after}" + (f": {self.reason}" if self.reason else "")


@dataclass
class Outcome:
    """What was (or would be) changed; `refused` are downgrades that were too many; notes and problems by run."""

    runs: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    refused: list[Change] = field(default_factory=list)
    why_refused: str | None = None
    notes: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sync:
    """Compares documents with the receipts of this site, and writes what differs."""

    db: RunDb
    config: Config
    state: State
    campaign: str
    dry_run: bool = False

    @property
    def _ours(self) -> str:
        return f"straxflow.{self.campaign}"

    def in_doubt(self, limit: int) -> list[Document]:
        """Documents that say that their run is worked on, though nobody has claimed it."""
        word = f"{status_field(self.campaign, self.config)}.status"
        query = {word: {"$in": [SUBMITTED, RUNNING]}, f"{self._ours}.claim.batch": {"$exists": False}}
        return list(self.db.runs.find(query, NOT_NEEDED).limit(limit))

    def newest(self, limit: int = 0) -> Iterator[Document]:
        """Documents of the newest runs that this campaign has worked on (0: all)."""
        query = {"number": scope(self.config)["number"], f"{self._ours}.token": {"$gte": 1}}
        yield from self.db.runs.find(query, NOT_NEEDED).sort("number", DESCENDING).limit(limit)

    def named(self, runs: RunList) -> Iterator[Document]:
        """Documents of runs that a person named."""
        yield from self.db.runs.find({"$and": [{"number": scope(self.config)["number"]}, runs.query()]}, NOT_NEEDED)

    def with_receipts(self) -> Iterator[Document]:
        """Documents of runs that have receipts but no word of this campaign: the database may have been restored
        from a copy that knows nothing of them."""
        unknown = {f"{self._ours}.token": {"$exists": False}, "number": scope(self.config)["number"]}
        for block in batched(self.state.all_runs(), 200):
            if queries := [query for run in block if (query := self._query(run))]:
                yield from self.db.runs.find({"$and": [unknown, {"$or": queries}]}, NOT_NEEDED)

    def _query(self, run: str) -> Document | None:
        try:
            return query_for(run, self.config)
        except Malformed:
            return None

    def run(self, documents: Iterable[Document], allow_downgrades: bool = False) -> Outcome:
        """Bring these documents in line. Many downgrades at once, or one while the state folder holds no run at all,
        look like a lost state folder: then none is made, unless they are allowed."""
        outcome = Outcome()
        wanted: list[Change] = []
        seen = set[object]()
        for document in documents:
            if document["_id"] in seen:
                continue
            seen.add(document["_id"])
            label = str(document.get("number"))
            try:
                run = parse(document, self.config, self.campaign)
                label = run.id
                if change := self._judge(run, outcome):
                    wanted.append(change)
                outcome.runs.append(run.id)
            except (StraxflowError, OSError) as error:
                outcome.problems[label] = str(error)
        downgrades = [change for change in wanted if change.kind == "downgrade"]
        outcome.why_refused = None if allow_downgrades else self._too_many(len(downgrades))
        if outcome.why_refused:
            outcome.refused = downgrades
            wanted = [change for change in wanted if change.kind != "downgrade"]
        outcome.changes = [change for change in wanted if self._write(change, outcome)]
        return outcome

    def _too_many(self, downgrades: int) -> str | None:
        most = self.config.sync.max_downgrades
        if downgrades > most:
            return f"{downgrades} runs would lose their `done`, more than sync.max_downgrades ({most})"
        if downgrades and not any(True for _ in self.state.all_runs()):
            return "the state folder holds no run at all"
        return None

    def _judge(self, run: Run, outcome: Outcome) -> Change | None:
        claim = run.campaign(self.campaign).get("claim")
        if claim is not None:
            return None  # whoever holds it tells its state, or takes it over
        known = self.state.run(run.id).is_dir()
        part = run.campaign(self.campaign)
        if not (known or part.get("token")):
            return None
        left_out = left_out_of(run, self.config, self.campaign)
        products = product_states(self.config, self.state, run.id, run.facts.mode, since=EVER, left_out=left_out)
        stands = standing(self.config, self.state, run.id, run.facts.mode, since=EVER, left_out=left_out)
        kind, after, reason = self._state(run, stands, products, outcome)
        fields: Document = details(self.campaign, products, part)
        field_ = status_field(self.campaign, self.config)
        value = status_holder(run.document, self.campaign, self.config).get("processing_status")
        others = other_fields(self.config, self.campaign, after or run.status, products)
        fields |= {name: word for name, word in others.items() if _value_at(run.document, name) != word}
        if after:
            fields[field_] = status_value(self.config, after, self.db.now(), this_host(), reason, BATCH)
        if not fields:
            return None
        guard = {
            "_id": run.object_id,
            field_: value,
            f"{self._ours}.claim.batch": {"$exists": False},
            f"{self._ours}.token": run.campaign(self.campaign).get("token"),
        }
        return Change(run.id, kind, run.status, after, reason, guard, fields)

    def _state(
        self, run: Run, stands: Standing, products: dict[str, ProductState], outcome: Outcome
    ) -> tuple[Kind, str | None, str | None]:
        """What the state of a run must become (None: it stays), and why."""
        value = status_holder(run.document, self.campaign, self.config).get("processing_status")
        ours = is_ours(self.config, value)
        if stands.state == "done":
            if run.status == "done" or not (ours or value is None) or run.status == "pending":
                return "details", None, None
            return "state", "done", None
        if not ours:
            return "details", None, None
        if run.status in (SUBMITTED, RUNNING):
            status = "failed" if stands.state == "damaged" else "pending"
            reason = stands.reason or "nobody works on it any more"
            return "state", status, reason if STATUS[stands.state] == status else f"tried again: {reason}"
        if run.status != "done":
            return "details", None, None
        lacking = [name for name, state in products.items() if state.state != "done"]
        # a product that the document never told of was added to the configuration since
        part = run.campaign(self.campaign)
        told = part.get("products")
        known = {**told, RELEASE: part.get(RELEASE)} if isinstance(told, dict) else None
        lost = [name for name in lacking if known is None or known.get(name)]
        if not lost:
            if lacking:
                outcome.notes[run.id] = f"done without {', '.join(lacking)}, which came into the configuration later"
            return "details", None, None
        return "downgrade", "pending", f"straxflow sync: the receipts of {', '.join(lost)} are missing or not good"

    def _write(self, change: Change, outcome: Outcome) -> bool:
        if self.dry_run or self.db.runs.update_one(change.guard, {"$set": change.fields}).matched_count:
            return True
        outcome.problems[change.run] = "its document was changed by somebody else just now; left alone"
        return False

    def attempts(self, run: str) -> int:
        """Write the attempts of a run that the database does not know, or knows as still open; how many."""
        files = list(attempts.all_of(self.state, run))
        news = history.news(self.db, self.config, self.campaign, run, files)
        if news and not self.dry_run:
            history.record(self.db, self.config, self.campaign, news)
        return len(news)


def at_start(db: RunDb, config: Config, state: State, campaign: str) -> Sequence[Change]:
    """What an invocation does when it starts: one query, and the few documents that are in doubt."""
    sync = Sync(db, config, state, campaign)
    return sync.run(sync.in_doubt(config.sync.at_start)).changes if config.sync.at_start else []


def _value_at(document: Document, path: str) -> Any:
    value: Any = document
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Items in lists of at most so many."""
    rest = iter(items)
    while block := list(islice(rest, size)):
        yield block
