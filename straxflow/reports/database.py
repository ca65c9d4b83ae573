"""What the run database adds to the status: who holds which run, and which pending runs are not here yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal, TypeVar

from straxflow.config import Config
from straxflow.errors import StraxflowError
from straxflow.reports.standings import Holder
from straxflow.rundb.client import Document, RunDb, connect
from straxflow.rundb.pending import candidates, claim_lapsed, scope
from straxflow.rundb.rundoc import Malformed, campaign_part, parse, query_for, status_of

MOST = 10_000


@dataclass(frozen=True)
class Seen:
    """What the database says; `problem` if it does not answer, and then nothing else."""

    problem: str | None = None
    pending: Sequence[str] = ()
    holders: Mapping[str, Holder] | None = None
    elsewhere: Mapping[str, str | None] = field(default_factory=dict)


T = TypeVar("T")


def ask(config: Config, question: Callable[[RunDb], T]) -> tuple[T | None, str | None]:
    """Ask the run database something: the answer, or why there is none."""
    try:
        with connect(config) as db:
            return question(db), None
    except StraxflowError as error:
        return None, str(error)


def look(config: Config, campaign: str, unknown: Sequence[str]) -> Seen:
    """Ask the database; `unknown` are named runs of which there is nothing here. Changes nothing."""

    def question(db: RunDb) -> Seen:
        found = candidates(db, config, campaign, lambda _: None)
        return Seen(
            pending=[candidate.run.id for candidate in islice(found, MOST)],
            holders=_holders(db, config, campaign),
            elsewhere=_elsewhere(db, config, campaign, unknown),
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
        claim: Any = campaign_part(document, campaign).get("claim")
        owner = claim.get("owner") or {}
        lapsed = claim_lapsed(claim, moment, config.claim.lease_s)
        life: Literal["alive", "dead"] = "dead" if lapsed else "alive"
        held[run] = Holder(str(claim.get("batch")), str(owner.get("host")), owner.get("pid"), life)
    return held


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
