"""Everything there is to tell about one run: its document, receipts, copies, attempts and logs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from straxflow import actions, attempts
from straxflow.actions import Action
from straxflow.attempts import Attempt
from straxflow.config import LIVE, Config
from straxflow.daqfolder import run_place
from straxflow.errors import StraxflowError
from straxflow.receipts import (
    Checksums,
    Processed,
    Receipt,
    Registered,
    Released,
    RunFacts,
    State,
    Stored,
    Transferred,
    read,
)
from straxflow.reports.copies import Copies, Copy
from straxflow.reports.documents import RunRow, row_of, text, time_of
from straxflow.reports.logs import LogFile, log_files
from straxflow.reports.standings import RunStatus, Standings
from straxflow.rundb.client import Document, RunDb
from straxflow.rundb.history import history_of
from straxflow.rundb.rundoc import Malformed, data_field, parse, query_for
from straxflow.rundb.whynot import why_not

OF_PRODUCT: tuple[type[Receipt], ...] = (Transferred, Processed, Checksums, Stored, Registered)


@dataclass(frozen=True)
class ReceiptView:
    """A receipt: whole, or what is wrong with it."""

    path: Path
    product: str | None
    name: str
    receipt: Receipt | None
    problem: str | None = None


@dataclass(frozen=True)
class Entry:
    """A data entry of the run document. `there`: told by a look, where this site can look."""

    type: str
    host: str
    location: str
    size_mb: float | None
    time: datetime | None
    campaign: str | None
    deleted: datetime | None = None
    there: str | None = None


@dataclass(frozen=True)
class InDatabase:
    """What the run database tells of a run; `documents` are more than one if something is wrong."""

    documents: Sequence[Document] = ()
    row: RunRow | None = None
    facts: RunFacts | None = None
    entries: Sequence[Entry] = ()
    actions: Sequence[Action] = ()
    attempts: Sequence[Attempt] = ()
    why_not: Sequence[str] = ()
    """Why the next invocation would not claim it."""
    problem: str | None = None

    @property
    def document(self) -> Document:
        """The document, without its data entries (they are told apart); empty if there is none."""
        found = self.documents[0] if self.documents else {}
        return {key: value for key, value in found.items() if key not in ("data", "deleted_data")}


@dataclass(frozen=True)
class RunView:
    """A run."""

    run: str
    database: InDatabase
    status: RunStatus | None
    receipts: Sequence[ReceiptView]
    copies: Sequence[Copy]
    attempts: Sequence[Attempt]
    logs: Sequence[LogFile] = field(default=())

    @property
    def known(self) -> bool:
        """Whether anything is known of it at all."""
        return bool(self.database.documents or self.status or self.attempts)


def in_database(db: RunDb, config: Config, campaign: str, run: str) -> InDatabase:
    """Ask the run database about a run."""
    try:
        query = query_for(run, config)
    except Malformed as error:
        return InDatabase(problem=str(error))
    found = list(db.runs.find(query, {"data.meta": 0, "deleted_data.meta": 0}).limit(5))
    problem = f"{len(found)} run documents have this number; remove the wrong ones" if len(found) > 1 else None
    history: Any = {"actions": actions.of_run(db, campaign, run), "attempts": history_of(db, campaign, run)}
    if not found:
        return InDatabase(problem="there is no run document of it", **history)
    return InDatabase(
        documents=found,
        row=row_of(found[0], config, campaign, db.now()),
        facts=_facts(found[0], config, campaign),
        why_not=why_not(db, config, campaign, run),
        entries=[*_entries(found[0], data_field(campaign, config))],
        problem=problem,
        **history,
    )


def _facts(document: Document, config: Config, campaign: str) -> RunFacts | None:
    try:
        # a run that is being taken has a place at the DAQ, too
        return parse({**document, "end": document.get("end") or document.get("start")}, config, campaign).facts
    except Malformed:
        return None


def of_run(config: Config, state: State, run: str, database: InDatabase, verify: bool = False) -> RunView:
    """All that is known of a run; with `verify` its copies here are read again, which may take long."""
    here = state.run(run).is_dir()
    copies = Copies(config, state)
    entries = [replace(entry, there=_place(entry, copies, config, run, database.facts)) for entry in database.entries]
    return RunView(
        run=run,
        database=replace(database, entries=entries),
        status=_status(config, state, run) if here else None,
        receipts=list(_receipts(config, state, run)) if here else [],
        copies=list(copies.verified(run)) if verify else copies.of(run),
        attempts=_merged(database.attempts, [file.attempt for file in attempts.all_of(state, run)]),
        logs=log_files(state, run),
    )


def _place(entry: Entry, copies: Copies, config: Config, run: str, facts: RunFacts | None) -> str | None:
    """What a look at the place of an entry told; None if it cannot be looked at from here."""
    if entry.deleted:
        return None
    place = Path(entry.location)
    if entry.type == LIVE and entry.host == config.daq.host:
        there, why = copies.at("daq", Path(run_place(config, facts).path)) if facts else ("unknown", None)
    elif entry.type == LIVE and entry.host == config.site:
        there, why = copies.at("live", config.folders.live / run)
    elif entry.host in config.store_hosts and place.parent == config.store.folder:
        there, why = copies.at("store", place)
    else:
        return None
    return f"{there}: {why}" if why else there


def _status(config: Config, state: State, run: str) -> RunStatus:
    return Standings(config, state, None).brief(run)


def _merged(kept: Sequence[Attempt], here: Sequence[Attempt]) -> list[Attempt]:
    """Attempts that the database keeps and those that are here, oldest first; what is here is newer."""
    # the database keeps milliseconds
    found = {(a.product, a.step, int(a.started.timestamp() * 1000), str(a.owner)): a for a in [*kept, *here]}
    return sorted(found.values(), key=lambda a: a.started)


def _receipts(config: Config, state: State, run: str) -> Iterator[ReceiptView]:
    yield from _receipt(state.run(run) / RunFacts.name, RunFacts, None, run)
    for product in [LIVE, *config.products]:
        for model in OF_PRODUCT:
            yield from _receipt(state.path(run, product, model), model, product, run)
    yield from _receipt(state.released(run), Released, None, run)


def _receipt(path: Path, model: type[Receipt], product: str | None, run: str) -> Iterator[ReceiptView]:
    try:
        yield ReceiptView(path, product, model.name, read(path, model, run))
    except FileNotFoundError:
        return
    except (StraxflowError, OSError, UnicodeDecodeError) as error:
        yield ReceiptView(path, product, model.name, None, str(error))


def _entries(document: Document, data: str) -> Iterator[Entry]:
    for name in (data, data.removesuffix("data") + "deleted_data"):
        holder: object = document
        for key in name.split("."):
            holder = holder.get(key) if isinstance(holder, Mapping) else None
        for one in holder if isinstance(holder, list) else []:
            if isinstance(one, Mapping):
                size = one.get("size_mb")
                yield Entry(
                    type=text(one.get("type")) or "?",
                    host=text(one.get("host")) or "?",
                    location=text(one.get("location")) or "?",
                    size_mb=float(size) if isinstance(size, (int, float)) else None,
                    time=time_of(one.get("time")),
                    campaign=text(one.get("campaign")),
                    deleted=time_of(one.get("deleted_at")),
                )


def words_of(document: Document, key: str) -> list[str]:
    """Tags or comments as lines: what, by whom, when."""
    found = []
    rows = document.get(key)
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, Mapping):
            said = text(row.get("name") if key == "tags" else row.get("text") or row.get("comment"))
            when = time_of(row.get("date") or row.get("time"))
            who = text(row.get("user"))
            found.append(
                " ".join(w for w in (said or "?", f"by {who}" if who else "", f"{when:%F %T}" if when else "") if w)
            )
        elif row is not None:
            found.append(str(row))
    return found
