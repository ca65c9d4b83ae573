"""Claims in the run database: taken atomically, renewed, judged by its clock, released by their owner only."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from pymongo import ReturnDocument

from straxflow.config import Config
from straxflow.errors import RunDbError
from straxflow.owner import Owner
from straxflow.plan import Standing
from straxflow.rundb.client import Document, RunDb
from straxflow.rundb.pending import Candidate, candidates, claim_lapsed
from straxflow.rundb.rundoc import Run, campaign_part, parse, query_for, status_field


@dataclass(frozen=True)
class Claimed:
    """A run that is ours, with its fencing token, and the batch it was taken over from, if any."""

    run: Run
    token: int
    taken_from: str | None = None


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

    def claim_pending(self, available: Callable[[str], bool], problem: Callable[[str], None]) -> list[Claimed]:
        """Claim pending runs, newest first, at most `claim.max_runs`."""
        claimed: list[Claimed] = []
        for candidate in candidates(self.db, self.config, self.campaign, problem):
            if len(claimed) >= self.config.claim.max_runs:
                break
            if available(candidate.run.id) and (one := self._take(candidate)):
                claimed.append(one)
        return claimed

    def claim_named(self, run_id: str) -> Claimed:
        """Claim a run that a person named, whatever its state and tags.

        Raises:
            RunDbError: if there is no such run, it is malformed or still being taken, it lies below
                `min_run_number`, or another invocation works on it.
        """
        documents = list(self.db.runs.find(query_for(run_id, self.config)).limit(2))
        if not documents:
            raise RunDbError(f"run {run_id}: there is no run document of it in {self.db.runs.full_name}")
        if len(documents) > 1:
            raise RunDbError(f"run {run_id}: two run documents have this number; remove the wrong one")
        run = parse(documents[0], self.config, self.campaign)
        lowest = self.config.runs.min_run_number
        if run.facts.number < lowest:
            raise RunDbError(f"run {run_id}: lies below runs.min_run_number ({lowest}), so it is never touched")
        part = run.campaign(self.campaign)
        claim = part.get("claim")
        batch = f"{self._ours}.claim.batch"
        guard: Document = {"_id": run.object_id, f"{self._ours}.token": part.get("token")}
        if claim is None:
            guard[batch] = {"$exists": False}
        elif claim_lapsed(claim, self.db.now(), self.config.claim.lease_s):
            guard |= {batch: claim.get("batch"), f"{self._ours}.claim.renewed": claim.get("renewed")}
        taken = None if claim is not None and batch not in guard else self._take(Candidate(run, guard))
        if taken is None:
            now_held = self.db.runs.find_one({"_id": run.object_id}) or {}
            holder = campaign_part(now_held, self.campaign).get("claim") or {}
            owner = holder.get("owner") or {}
            raise RunDbError(
                f"run {run_id}: invocation {holder.get('batch')} works on it "
                f"(host {owner.get('host')}, pid {owner.get('pid')}); wait for it, or stop it"
            )
        return taken

    def _take(self, candidate: Candidate) -> Claimed | None:
        before = candidate.run.campaign(self.campaign).get("claim")
        now = self.db.now()
        status = {
            "status": "submitted",
            "time": now,
            "host": self.owner.host,
            "reason": f"claimed by straxflow {self.batch}",
        }
        claim = {
            "owner": self.owner.as_dict(),
            "batch": self.batch,
            "lease_s": self.config.claim.lease_s,
            "claimed": now,
            "renewed": now,
        }
        document = self.db.runs.find_one_and_update(
            candidate.condition,
            {
                "$set": {f"{self._ours}.claim": claim, status_field(self.campaign): status},
                "$inc": {f"{self._ours}.token": 1},
            },
            projection={f"{self._ours}.token": 1},
            return_document=ReturnDocument.AFTER,
        )
        if document is None:
            return None
        token = int(campaign_part(document, self.campaign)["token"])
        taken_from = before.get("batch") if isinstance(before, dict) else None
        return Claimed(candidate.run, token, taken_from)

    def renew(self) -> int:
        """Renew all claims of this batch; how many there are."""
        result = self.db.runs.update_many(
            {f"{self._ours}.claim.batch": self.batch},
            {"$set": {f"{self._ours}.claim.renewed": self.db.now()}},
        )
        return result.matched_count

    def held(self) -> list[Document]:
        """The run documents that this batch holds."""
        return list(self.db.runs.find({f"{self._ours}.claim.batch": self.batch}))

    def release(self, object_id: object, token: int, standing: Standing) -> bool:
        """Give a run back with its state; False if it is not ours any more."""
        now = self.db.now()
        field = status_field(self.campaign)
        set_: Document = {}
        unset: Document = {f"{self._ours}.claim": ""}
        update: Document = {"$set": set_, "$unset": unset}
        reason = standing.reason
        status = {"reached": "pending", "waiting": "pending", "damaged": "failed"}.get(standing.state, standing.state)
        if standing.state == "done":
            reason = None
            unset |= {f"{self._ours}.due": "", f"{self._ours}.failures": ""}
        elif standing.state == "failed":
            part = campaign_part(self.db.runs.find_one({"_id": object_id}) or {}, self.campaign)
            failures = part.get("failures") if isinstance(part.get("failures"), int) else 0
            set_[f"{self._ours}.due"] = now + timedelta(seconds=self._backoff(int(failures or 0)))
        elif standing.state == "damaged":
            # nothing but a person can mend it, so it is never due again by itself
            unset[f"{self._ours}.due"] = ""
        elif standing.state == "waiting":
            set_[f"{self._ours}.wait_until"] = now + timedelta(seconds=max(self.config.runs.settle_s, 1))
        if status == "failed":
            update["$inc"] = {f"{self._ours}.failures": 1}
            if self.campaign == "online":
                update["$inc"]["processing_failed"] = 1
        set_[field] = {
            "status": status,
            "time": now,
            "host": self.owner.host,
            "reason": f"{reason} (log: {standing.log})" if standing.log else reason,
        }
        guard = {
            "_id": object_id,
            f"{self._ours}.claim.batch": self.batch,
            f"{self._ours}.token": token,
        }
        # a person who wrote `pending` meanwhile wants it looked at again, whatever became of it now
        not_wanted = {"$nor": [{field: "pending"}, {f"{field}.status": "pending"}]}
        if self.db.runs.update_one({**guard, **not_wanted}, update).matched_count:
            return True
        return self.db.runs.update_one(guard, {"$unset": {f"{self._ours}.claim": ""}}).matched_count == 1

    def _backoff(self, failures: int) -> float:
        return float(self.config.claim.backoff_s * random.uniform(0.5, 1.5) * 5 ** min(failures, 3))
