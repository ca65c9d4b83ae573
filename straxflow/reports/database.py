"""What the run database adds to the status: who holds which run, and which pending runs are not here yet."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from straxflow.config import Config
from straxflow.errors import StraxflowError, UsageError
from straxflow.receipts import State
from straxflow.reports.documents import claimant_of
from straxflow.reports.standings import Holder
from straxflow.rundb.client import Document, RunDb, connect
from straxflow.rundb.pending import candidates, readable, scope
from straxflow.rundb.rundoc import (
    IDENTITY,
    Malformed,
    campaign_part,
    make_run_id,
    parse,
    query_for,
    status_field,
    status_of,
)
from straxflow.runlist import RunList, parse_runs

MOST = 10_000
MOST_LEFT = 1000


@dataclass(frozen=True)
class Seen:
    """What the database says; `problem` if it does not answer, and then nothing else."""

    problem: str | None = None
    pending: Sequence[str] = ()
    holders: Mapping[str, Holder] | None = None
    elsewhere: Mapping[str, str | None] = field(default_factory=dict)
    left: Sequence[str] = ()
    """Failed runs that are not tried again by themselves; the newest, at most `MOST_LEFT`."""


T = TypeVar("T")


def ask(config: Config, question: Callable[[RunDb], T]) -> tuple[T | None, str | None]:
    """Ask the run database something: the answer, or why there is none."""
    try:
        with connect(config) as db:
            return question(db), None
    except StraxflowError as error:
        return None, str(error)


def run_named(config: Config, state: State, word: str) -> str:
    """The id of the one run that a word names; it need not exist. The database is asked only where the word does not
    tell.

    Raises:
        UsageError: if the word names several runs, or a number that no run has.
    """
    runs = parse_runs([word], config)
    if runs.count != 1:
        raise UsageError(f"{word!r}: expected one run, not {runs.count}")
    if ids := runs.single():
        return ids[0]
    asked, problem = ask(config, lambda db: _ids(db, config, runs))
    ids = list(dict.fromkeys([*runs.ids(config, state), *(asked or ())]))
    if len(ids) != 1:
        told = f"names several runs: {', '.join(ids)}" if ids else f"no run has this number ({problem or 'nor here'})"
        raise UsageError(f"{word!r}: {told}; give the run id (as {config.run_id!r} makes it)")
    return ids[0]


def _ids(db: RunDb, config: Config, runs: RunList) -> list[str]:
    found = []
    for document in db.runs.find(runs.query(), {"data": 0, "deleted_data": 0}).limit(MOST):
        with contextlib.suppress(Malformed):
            found.append(make_run_id(document, config, ""))
    return found


def look(config: Config, campaign: str, unknown: Sequence[str]) -> Seen:
    """Ask the database; `unknown` are named runs of which there is nothing here. Changes nothing."""

    def question(db: RunDb) -> Seen:
        found = candidates(db, config, campaign, lambda _: None)
        return Seen(
            pending=[candidate.run.id for candidate in islice(found, MOST)],
            holders=_holders(db, config, campaign),
            elsewhere=_elsewhere(db, config, campaign, unknown),
            left=_left_to_a_person(db, config, campaign),
        )

    seen, problem = ask(config, question)
    return seen or Seen(problem=problem)


def _holders(db: RunDb, config: Config, campaign: str) -> dict[str, Holder]:
    held: dict[str, Holder] = {}
    query: Document = {**scope(config), f"straxflow.{campaign}.claim.batch": {"$exists": True}}
    moment = db.now()
    for document in db.runs.find(query, {"data": 0}):
        try:
            run = parse(document, config, campaign).id
        except Malformed:
            continue
        one = claimant_of(campaign_part(document, campaign), moment, config.claim.lease_s)
        if one:
            held[run] = Holder(one.batch, one.host, one.pid, "alive" if one.alive else "dead")
    return held


def _left_to_a_person(db: RunDb, config: Config, campaign: str) -> list[str]:
    ours = f"straxflow.{campaign}"
    query: Document = {
        **scope(config),
        f"{status_field(campaign, config)}.status": "failed",
        f"{ours}.token": {"$exists": True},
        **{f"{ours}.{name}": {"$exists": False} for name in ("due", "claim")},
    }
    fields = dict.fromkeys([*IDENTITY, "start", "end"], 1)
    found = db.runs.find(query, fields).sort("number", -1).limit(MOST_LEFT)
    return [run.id for run in readable(found, config, campaign, lambda _: None)]


def _elsewhere(db: RunDb, config: Config, campaign: str, unknown: Sequence[str]) -> dict[str, str | None]:
    """State in the database of runs that are not here; those that it does not know either are left out."""
    found: dict[str, str | None] = {}
    for run in unknown:
        try:
            document = db.runs.find_one(query_for(run, config), {"data": 0})
        except Malformed:
            continue
        if document is not None:
            found[run] = status_of(document, campaign, config)
    return found
