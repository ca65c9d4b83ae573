"""Claims in the run database: taken atomically, renewed, judged by its clock, released by their owner only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

import bson
from pymongo import UpdateMany
from pymongo.errors import BulkWriteError, WriteError

from straxflow.config import Config
from straxflow.errors import RunDbError
from straxflow.failures import REMEMBERED, judge
from straxflow.owner import Owner
from straxflow.plan import Standing
from straxflow.progress import ProductState
from straxflow.rundb.asked import left_out_of, person_asks, state_before
from straxflow.rundb.client import Document, RunDb, first_line
from straxflow.rundb.gate import OPEN, Gate, at_work
from straxflow.rundb.lapse import claim_lapsed
from straxflow.rundb.pending import Candidate, candidates, held_and_claimed, projection, readable
from straxflow.rundb.rundoc import Run, campaign_part, parse, query_for, shares_state, status_field, status_holder
from straxflow.rundb.states import STATUS, SUBMITTED, details, other_fields, status_value, still_ours

NONE: Mapping[str, ProductState] = {}


@dataclass(frozen=True)
class Claimed:
    """A run that is ours, with its fencing token, and the batch it was taken over from, if any."""

    run: Run
    token: int
    taken_from: str | None = None
    products: list[str] | None = None
    """The products to make of it; None: all that its mode has."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Products that are not made of it in this pass, each with the reason."""


@dataclass(frozen=True)
class Released:
    """A run that was given back: its state and reason as its document tells them, whether it is left to a person, and
    how often it has failed. Of one that has its earlier state again nothing is told."""

    status: str | None = None
    reason: str | None = None
    settled: bool = False
    count: int = 0


@dataclass(frozen=True)
class Claimer:
    """Takes and releases claims for one invocation."""

    db: RunDb
    config: Config
    campaign: str
    batch: str
    owner: Owner

    @property
    def _ours(self) -> str:
        return f"straxflow.{self.campaign}"

    def claim_pending(
        self, available: Callable[[str], bool], problem: Callable[[str], None], gate: Gate = OPEN
    ) -> list[Claimed]:
        """Claim pending runs in the order of `candidates`, as many as `claim.max_runs` and the gate allow."""
        # a claim job that died half-way is tried again, and finds what it had claimed
        held, others = held_and_claimed(self.db, self.config, self.campaign, self.batch)
        claimed = [
            self._claimed(run, int(part["token"]), part["claim"])
            for run in readable(held, self.config, self.campaign, problem)
            if (part := run.campaign(self.campaign))
        ]
        most = self.config.claim.max_runs if gate.room is None else min(self.config.claim.max_runs, gate.room)
        if len(claimed) >= most:
            return claimed
        found = (
            candidate
            for candidate in candidates(self.db, self.config, self.campaign, problem, gate, most - len(claimed), others)
            if available(candidate.run.id)
        )
        # where others may reach the cap at the same moment, it is looked at after each
        at_once = 1 if self.config.claim.max_jobs is not None else most
        while chosen := list(islice(found, min(at_once, most - len(claimed)))):
            taken = self._take(chosen, problem)
            if taken and self._one_too_many():
                self.undo(taken[-1].run.object_id, taken[-1].token)
                break
            claimed += taken
        return claimed

    def _one_too_many(self) -> bool:
        """Whether others claimed at the same moment, so that more runs are at work now than may be."""
        most = self.config.claim.max_jobs
        return most is not None and at_work(self.db, self.config, most) > most

    def claim_named(self, run_id: str) -> Claimed:
        """Claim a run that a person named, whatever its state and tags.

        Raises:
            RunDbError: if there is no such run, it is malformed or still being taken, it lies below
                `min_run_number`, or another invocation works on it.
        """
        for _ in range(5):
            taken, holder = self._try_named(run_id)
            if taken:
                return taken
            if holder:
                break
        owner = holder.get("owner")
        owner = owner if isinstance(owner, Mapping) else {}
        raise RunDbError(
            f"run {run_id}: invocation {holder.get('batch')} works on it "
            f"(host {owner.get('host')}, pid {owner.get('pid')}); wait for it, or stop it"
        )

    def _try_named(self, run_id: str) -> tuple[Claimed | None, Mapping[str, Any]]:
        """The claim on a run, or who holds it; neither if its document changed just now."""
        documents = list(self.db.runs.find(query_for(run_id, self.config)).limit(2))
        if not documents:
            raise RunDbError(f"run {run_id}: there is no run document of it in {self.db.runs.full_name}")
        if len(documents) > 1:
            raise RunDbError(f"run {run_id}: two run documents have this number; remove the wrong one")
        run = parse(documents[0], self.config, self.campaign)
        lowest, highest = self.config.runs.min_run_number, self.config.runs.max_run_number
        if run.facts.number < lowest or (highest is not None and run.facts.number > highest):
            raise RunDbError(
                f"run {run_id}: lies outside of runs.min_run_number ({lowest}) and max_run_number ({highest}), "
                "so it is never touched"
            )
        part = run.campaign(self.campaign)
        claim = part.get("claim")
        batch = f"{self._ours}.claim.batch"
        guard: Document = {"_id": run.object_id, f"{self._ours}.token": part.get("token")}
        if claim is None:
            guard[batch] = {"$exists": False}
        elif claim_lapsed(claim, self.db.now(), self.config.claim.lease_s):
            guard |= {batch: claim.get("batch"), f"{self._ours}.claim.renewed": claim.get("renewed")}
        taken = (
            None
            if claim is not None and batch not in guard
            else next(iter(self._take([Candidate(run, guard)], _refuse, named=True)), None)
        )
        now_held = {} if taken else self.db.runs.find_one({"_id": run.object_id}) or {}
        return taken, campaign_part(now_held, self.campaign).get("claim") or {}

    def _take(self, chosen: Sequence[Candidate], problem: Callable[[str], None], named: bool = False) -> list[Claimed]:
        """Claim these runs by one command: each atomically, and only if nobody changed its document meanwhile."""
        now = self.db.now()
        takings = [self._taking(candidate, now, named) for candidate in chosen]
        try:
            took = self.db.runs.bulk_write(_alike(takings), ordered=False).matched_count
        except BulkWriteError as error:
            refused = error.details.get("writeErrors")
            if not refused:
                raise
            if len(chosen) > 1:
                return [one for candidate in chosen for one in self._take([candidate], problem, named)]
            why = f"its run document does not take the claim: {refused[0].get('errmsg')}"
            problem(f"run {chosen[0].run.id}: {why}; correct it")
            return []
        if took < len(takings):
            # others were faster with some; a token that is not the next one is of a claim that this batch had before
            ids = [taking.run.object_id for taking in takings]
            ours = {f"{self._ours}.claim.batch": self.batch, "_id": {"$in": ids}}
            found = self.db.runs.find(ours, {f"{self._ours}.token": 1})
            tokens = {document["_id"]: campaign_part(document, self.campaign)["token"] for document in found}
            takings = [taking for taking in takings if tokens.get(taking.run.object_id) == taking.token]
        return [self._claimed(taking.run, taking.token, taking.claim) for taking in takings]

    def _taking(self, candidate: Candidate, now: datetime, named: bool) -> _Taking:
        part = candidate.run.campaign(self.campaign)
        earlier = part.get("claim")
        taken_from = earlier.get("batch") if isinstance(earlier, Mapping) else None
        field_ = status_field(self.campaign, self.config)
        word = status_holder(candidate.run.document, self.campaign, self.config).get("processing_status")
        # all is forgiven to a run that a person asks for; what a person writes just now is not overlooked
        forgiven = REMEMBERED if person_asks(candidate.run, self.config, self.campaign) and not named else ()
        reason = f"claimed by straxflow {self.batch}"
        status = status_value(self.config, SUBMITTED, now, self.owner.host, reason, self.batch)
        claim = {
            "named": named,
            "site": self.config.site,
            "products": candidate.products,
            "taken_from": taken_from,
            "before": state_before(candidate.run, self.config, self.campaign),
            "owner": self.owner.as_dict(),
            "batch": self.batch,
            "lease_s": self.config.claim.lease_s,
            "claimed": now,
            "renewed": now,
        }
        update = {
            "$set": {
                f"{self._ours}.claim": claim,
                field_: status,
                **other_fields(self.config, self.campaign, SUBMITTED, {}),
            },
            "$inc": {f"{self._ours}.token": 1},
            **({"$unset": {f"{self._ours}.{name}": "" for name in forgiven}} if forgiven else {}),
        }
        condition = {name: value for name, value in candidate.condition.items() if name != "_id"} | {field_: word}
        token = part.get("token")
        return _Taking(
            candidate.run, int(token) + 1 if isinstance(token, (int, float)) else 1, claim, condition, update
        )

    def renew(self) -> int:
        """Renew all claims of this batch; how many there are."""
        result = self.db.runs.update_many(
            {f"{self._ours}.claim.batch": self.batch},
            {"$set": {f"{self._ours}.claim.renewed": self.db.now()}},
        )
        return result.matched_count

    def held(self) -> list[Document]:
        """The run documents that this batch holds."""
        return list(self.db.runs.find({f"{self._ours}.claim.batch": self.batch}, projection(self.campaign)))

    def release(
        self, object_id: object, token: int, standing: Standing, products: Mapping[str, ProductState] = NONE
    ) -> Released | None:
        """Give a run back with its state, and those of its products; None if it is not ours any more.

        What somebody else wrote meanwhile as its state stays, and so does the earlier state of a run that a person
        named, unless it is done now.
        """
        guard = self._guard(object_id, token)
        document = self.db.runs.find_one(guard)
        if document is None:
            return None
        part = campaign_part(document, self.campaign)
        if part["claim"].get("named") and standing.state != "done":
            return Released() if self.undo(object_id, token, products) else None
        now = self.db.now()
        verdict = judge(self.config, part, standing, now)
        status = STATUS[standing.state]
        reason = None if standing.state == "done" else verdict.reason
        told = f"{reason} (log: {standing.log})" if standing.log and reason else reason
        update: Document = {
            "$set": {
                **{f"{self._ours}.{name}": value for name, value in verdict.sets.items()},
                f"{self._ours}.gave_back": {"status": status, "batch": self.batch},
                status_field(self.campaign, self.config): status_value(
                    self.config, status, now, self.owner.host, told, self.batch
                ),
                **other_fields(self.config, self.campaign, status, products),
            },
            "$unset": {f"{self._ours}.{name}": "" for name in ["claim", *sorted(verdict.unsets)]},
        }
        if status == "failed" and shares_state(self.campaign, self.config):
            if isinstance(document.get("processing_failed", 0), int):
                update["$inc"] = {"processing_failed": 1}
            else:
                update["$set"]["processing_failed"] = 1
        if self._end_claim(guard, update, details(self.campaign, products, part)):
            return Released(status, reason, verdict.settled, verdict.count)
        return None

    def undo(self, object_id: object, token: int, products: Mapping[str, ProductState] = NONE) -> bool:
        """Give a run back with the state it had before it was claimed; False if it is not ours any more."""
        guard = self._guard(object_id, token)
        document = self.db.runs.find_one(guard)
        if document is None:
            return False
        part = campaign_part(document, self.campaign)
        before = part["claim"].get("before")
        field = status_field(self.campaign, self.config)
        update: Document = {"$unset": {f"{self._ours}.claim": ""}}
        word = before.get("status") if isinstance(before, Mapping) else before
        update["$set"] = other_fields(self.config, self.campaign, word or "pending", products)
        if before is None:
            update["$unset"][field] = ""
        else:
            update["$set"][field] = before
        return self._end_claim(guard, update, details(self.campaign, products, part))

    def _end_claim(self, guard: Document, update: Document, told: Document) -> bool:
        """Make the last update of a claim, but leave the state alone where somebody else wrote it meanwhile."""
        last = {**update, "$set": {**update.get("$set", {}), **told}}
        # that is a person's word, even where only the word was changed: it is obeyed at once, and all is forgiven
        gave_back = {f"{self._ours}.gave_back": {"status": SUBMITTED, "batch": self.batch}}
        only = {"$unset": {f"{self._ours}.{name}": "" for name in ("claim", "wait_until")}, "$set": told | gave_back}
        field = status_field(self.campaign, self.config)
        try:
            return self._end(guard, last, only)
        except WriteError as error:
            # a claim that could not end would hold the run for ever
            reason = f"the run document does not take its state: {first_line(error)}; correct it"
            status = status_value(self.config, "failed", self.db.now(), self.owner.host, reason, self.batch)
            dropped = {f"{self._ours}.{name}": "" for name in ("claim", "due")}
            return self._end(guard, {"$set": {field: status}, "$unset": dropped}, {"$unset": dropped})

    def _end(self, guard: Document, last: Document, only: Document) -> bool:
        ours = {**guard, **still_ours(self.config, self.campaign, self.batch)}
        if self.db.runs.update_one(ours, _without_empty(last)).matched_count:
            return True
        return self.db.runs.update_one(guard, _without_empty(only)).matched_count == 1

    def _guard(self, object_id: object, token: int) -> Document:
        return {"_id": object_id, f"{self._ours}.claim.batch": self.batch, f"{self._ours}.token": token}

    def _claimed(self, run: Run, token: int, claim: Mapping[str, Any]) -> Claimed:
        left_out = {} if claim.get("named") else left_out_of(run, self.config, self.campaign)
        return Claimed(run, token, claim.get("taken_from"), claim.get("products"), left_out)


@dataclass(frozen=True)
class _Taking:
    """How a run is to be claimed: the fencing token that it will have, and the update with its condition."""

    run: Run
    token: int
    claim: Document
    condition: Document
    update: Document


def _alike(takings: Iterable[_Taking]) -> list[UpdateMany]:
    """One update for all runs of which the same is asked and written, as it is of most new ones."""
    same: dict[bytes, tuple[_Taking, list[object]]] = {}
    for taking in takings:
        key = bson.encode({"condition": taking.condition, "update": taking.update})
        same.setdefault(key, (taking, []))[1].append(taking.run.object_id)
    return [UpdateMany({**one.condition, "_id": {"$in": ids}}, one.update) for one, ids in same.values()]


def _refuse(text: str) -> None:
    raise RunDbError(text)


def wanted_products(part: Mapping[str, Any]) -> list[str] | None:
    """The products for which a run is claimed, by straxflow's part of its document; None: all that its mode has."""
    claim = part.get("claim")
    found = claim.get("products") if isinstance(claim, Mapping) else None
    return [str(name) for name in found] if isinstance(found, list) else None


def _without_empty(update: Document) -> Document:
    """Servers refuse an operator that has nothing to do."""
    return {operator: fields for operator, fields in update.items() if fields}
