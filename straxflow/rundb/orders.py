"""What people order of runs: tags, another try, a state by hand. One guarded, atomic, repeatable write for each run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from straxflow.actions import user_name
from straxflow.config import Config
from straxflow.errors import ClaimLost, RunDbError
from straxflow.failures import REMEMBERED
from straxflow.owner import Owner, this_host
from straxflow.rundb.chosen import Chosen
from straxflow.rundb.client import Document, RunDb
from straxflow.rundb.lapse import claim_lapsed
from straxflow.rundb.rundoc import shares_state, status_field
from straxflow.rundb.states import other_fields

MARKED = "marked"
"""Who took a run for done by hand, and why; as long as it stands, the receipts do not change that state."""

Result = Literal["changed", "same", "refused"]


@dataclass(frozen=True)
class Outcome:
    """What an order did to a run."""

    run: str
    result: Result
    text: str


Order = Callable[[Chosen], Outcome]


@dataclass(frozen=True)
class Orders:
    """Carries out the orders of this process's user; with `dry` it only says what it would do."""

    db: RunDb
    config: Config
    campaign: str
    reason: str | None = None
    dry: bool = False
    stop_dead: Callable[[str], None] = lambda run: None
    """Ends the claim of a dead invocation, with all that it left running."""
    user: str = field(default_factory=user_name)
    now: datetime = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "now", self.db.now())

    @property
    def _ours(self) -> str:
        return f"straxflow.{self.campaign}"

    def tag(self, run: Chosen, name: str) -> Outcome:
        """Give a run a tag, unless it has it. A run that is worked on may be tagged: it counts from then on."""
        if problem := _tags_problem(run):
            return Outcome(run.id, "refused", problem)
        if name in _tags(run):
            return Outcome(run.id, "same", f"has the tag {name} already")
        tag = {"name": name, "user": self.user, "date": self.now}
        absent = {"_id": run.object_id, "tags": {"$not": {"$elemMatch": {"name": name}}}}
        return self._write(run, absent, {"$push": {"tags": tag}}, f"tagged {name}")

    def untag(self, run: Chosen, name: str) -> Outcome:
        """Take a tag from a run, whoever gave it."""
        if problem := _tags_problem(run):
            return Outcome(run.id, "refused", problem)
        if name not in _tags(run):
            return Outcome(run.id, "same", f"does not have the tag {name}")
        there = {"_id": run.object_id, "tags": {"$elemMatch": {"name": name}}}
        return self._write(run, there, {"$pull": {"tags": {"name": name}}}, f"no longer tagged {name}")

    def retry(self, run: Chosen) -> Outcome:
        """Make a run pending again, as if it had never failed."""
        return self._again(run, "tried again", "pending again")

    def mark_pending(self, run: Chosen) -> Outcome:
        """Make a run pending by hand: it is checked, and made again where it is not whole."""
        return self._again(run, "marked pending", "marked pending")

    def mark_done(self, run: Chosen) -> Outcome:
        """Take a run for done without any work on it; the receipts do not change that."""
        marked = run.part(self.campaign).get(MARKED)
        if run.status(self.campaign, self.config) == "done" and isinstance(marked, dict):
            return Outcome(run.id, "same", f"was marked done by {marked.get('by')}: {marked.get('reason')}")
        set_ = {
            f"{self._ours}.{MARKED}": {"by": self.user, "time": self.now, "reason": self.reason, "state": "done"},
            status_field(self.campaign, self.config): self._status("done", "marked done"),
            **other_fields(self.config, self.campaign, "done", {}),
        }
        return self._order(run, set_, list(REMEMBERED), "marked done")

    def _again(self, run: Chosen, how: str, text: str) -> Outcome:
        part = run.part(self.campaign)
        obstacles = [name for name in (*REMEMBERED, MARKED) if name in part]
        if run.status(self.campaign, self.config) == "pending" and not obstacles:
            return Outcome(run.id, "same", "is pending already")
        skipped = sorted(set(_tags(run)) & set(self.config.runs.tags.leave_alone))
        hint = f"; but it is left alone while it has the tag {', '.join(skipped)}" if skipped else ""
        return self._order(run, self._pending(run, how), [*REMEMBERED, MARKED], text + hint)

    def set_state(self, run: Chosen, status: str, how: str, *, forget: bool = False) -> Outcome:
        """Give a run that nobody works on a state, with who did it and why; `forget` its failures, too."""
        field_ = status_field(self.campaign, self.config)
        return self._order(run, {field_: self._status(status, how)}, [*REMEMBERED, MARKED] if forget else [], how)

    def close(self, run: Chosen, fields: Document) -> None:
        """Give a run that nobody could claim, for it had no end, one and make it pending.

        Raises:
            RunDbError: if it was changed meanwhile.
        """
        guard: Document = {"_id": run.object_id, "end": run.document.get("end")}
        guard[f"{self._ours}.claim.batch"] = {"$exists": False}
        if not self.db.runs.update_one(guard, {"$set": {**self._pending(run, "closed"), **fields}}).matched_count:
            raise RunDbError(f"run {run.id}: its document was changed by somebody else just now; try again")

    def pending_while_held(self, run: Chosen, batch: str, how: str, fields: Document | None = None) -> None:
        """Make a run that this process holds pending once it is given back, and set other fields with it.

        Raises:
            ClaimLost: if it is not held any more.
        """
        ours = {"_id": run.object_id, f"{self._ours}.claim.batch": batch}
        unset = {f"{self._ours}.{name}": "" for name in (*REMEMBERED, MARKED)}
        update = {"$set": {**self._pending(run, how), **(fields or {})}, "$unset": unset}
        if not self.db.runs.update_one(ours, update).matched_count:
            raise ClaimLost(f"run {run.id}: taken over by another invocation; nothing was changed")

    def _pending(self, run: Chosen, how: str) -> Document:
        field_ = status_field(self.campaign, self.config)
        set_ = {field_: self._status("pending", how), **other_fields(self.config, self.campaign, "pending", {})}
        if shares_state(self.campaign, self.config) and run.document.get("processing_failed"):
            set_["processing_failed"] = 0
        return set_

    def _status(self, status: str, how: str) -> Document:
        reason = f"{how} by {self.user}" + (f": {self.reason}" if self.reason else "")
        return {"status": status, "time": self.now, "host": this_host(), "reason": reason}

    def _order(self, run: Chosen, set_: Document, unset: list[str], text: str) -> Outcome:
        """Write what only a run that nobody works on may be given."""
        part = run.part(self.campaign)
        guard: Document = {"_id": run.object_id, f"{self._ours}.token": part.get("token")}
        if holder := self.holder(run):
            return Outcome(run.id, "refused", holder)
        if part.get("claim") is not None and not self.dry:
            self.stop_dead(run.id)
            fresh = self.db.runs.find_one({"_id": run.object_id}) or {}
            guard[f"{self._ours}.token"] = Chosen(run.id, run.object_id, fresh).part(self.campaign).get("token")
        guard[f"{self._ours}.claim.batch"] = {"$exists": False}
        update: Document = {"$set": set_}
        if unset:
            update["$unset"] = {f"{self._ours}.{name}": "" for name in unset}
        return self._write(run, guard, update, text)

    def holder(self, run: Chosen) -> str | None:
        """Who works on a run, in words; None if nobody does who is alive."""
        claim = run.part(self.campaign).get("claim")
        if claim is None or claim_lapsed(claim, self.now, self.config.claim.lease_s):
            return None
        owner = Owner.from_dict(claim["owner"])
        where = f"host {owner.host}, pid {owner.pid}"
        return f"invocation {claim.get('batch')} works on it ({where}); wait for it, or stop it"

    def _write(self, run: Chosen, guard: Document, update: Document, text: str) -> Outcome:
        if self.dry:
            return Outcome(run.id, "changed", f"would be {text}")
        if self.db.runs.update_one(guard, update).matched_count:
            return Outcome(run.id, "changed", text)
        return Outcome(run.id, "refused", "its document was changed by somebody else just now; try again")


def _tags(run: Chosen) -> list[str]:
    tags = run.document.get("tags") or []
    return [str(tag["name"]) for tag in tags if isinstance(tag, dict) and "name" in tag]


def _tags_problem(run: Chosen) -> str | None:
    tags = run.document.get("tags", [])
    return None if isinstance(tags, list) else f"its document is malformed: tags: expected a list, found {tags!r}"
