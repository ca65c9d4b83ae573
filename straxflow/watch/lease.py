"""Which watcher of a site and campaign acts: the one that holds the lease, a document in the run database."""

from __future__ import annotations

import getpass
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from straxflow.config import Config
from straxflow.owner import Owner
from straxflow.rundb.client import Document, RunDb
from straxflow.rundb.lapse import claim_lapsed

COLLECTION = "watchers"


def lease_id(site: str, campaign: str) -> str:
    """The `_id` of the lease of a site's campaign."""
    return f"{site}/{campaign}"


def holder_of(db: RunDb, config: Config, campaign: str) -> tuple[Document | None, bool]:
    """The lease as it stands, and whether somebody holds it; for those who only look."""
    document = db.ours(COLLECTION).find_one({"_id": lease_id(config.site, campaign)})
    if document is None or document.get("owner") is None:
        return document, False
    return document, not claim_lapsed(document, db.now(), config.watch.lease_s)


def in_words(lease: Document) -> str:
    """Who holds a lease."""
    owner: Any = lease.get("owner")
    if not isinstance(owner, dict):
        return "nobody"
    return f"{lease.get('user')} on {str(owner.get('host')).partition('+')[0]} (pid {owner.get('pid')})"


@dataclass
class Lease:
    """The lease as one watcher sees it. `term` counts its holders; None while it is not this one."""

    config: Config
    campaign: str
    owner: Owner = field(default_factory=Owner.current)
    term: int | None = None

    @property
    def _id(self) -> str:
        return lease_id(self.config.site, self.campaign)

    def take(self, db: RunDb) -> Document | None:
        """Take the lease if it is free: given up, of a dead process here, or silent for too long.

        Returns:
            None if it is ours now, otherwise the lease of the one who holds it.
        """
        watchers = db.ours(COLLECTION)
        now = db.now()
        there = watchers.find_one({"_id": self._id})
        if there is None:
            try:
                watchers.insert_one({"_id": self._id, **self._fields(now), "term": 1})
                self.term = 1
                return None
            except DuplicateKeyError:
                there = watchers.find_one({"_id": self._id}) or {}
        free = there.get("owner") is None or claim_lapsed(there, now, self.config.watch.lease_s)
        if free:
            guard = {name: there.get(name) for name in ("_id", "term", "owner", "renewed")}
            term = there.get("term")
            taken = watchers.find_one_and_update(
                guard,
                {"$set": {**self._fields(now), "term": term + 1 if isinstance(term, int) else 1}},
                return_document=ReturnDocument.AFTER,
            )
            if taken:
                self.term = int(taken["term"])
                return None
            there = watchers.find_one({"_id": self._id}) or {}
        return there

    def renew(self, db: RunDb, seen: Document) -> bool:
        """Renew it and tell what the watcher sees; False if it is lost."""
        result = db.ours(COLLECTION).update_one(
            {"_id": self._id, "term": self.term, "owner": self.owner.as_dict()},
            {"$set": {**seen, "renewed": db.now(), "lease_s": self.config.watch.lease_s}},
        )
        if result.matched_count == 0:
            self.term = None
        return self.term is not None

    def give_up(self, db: RunDb, seen: Document) -> None:
        """Leave it to the next one at once."""
        if self.term is not None:
            db.ours(COLLECTION).update_one(
                {"_id": self._id, "term": self.term, "owner": self.owner.as_dict()},
                {"$set": {**seen, "owner": None, "ended": db.now()}},
            )
            self.term = None

    def _fields(self, now: datetime) -> Document:
        return {
            "site": self.config.site,
            "campaign": self.campaign,
            "owner": self.owner.as_dict(),
            "user": getpass.getuser(),
            "since": now,
            "renewed": now,
            "lease_s": self.config.watch.lease_s,
            "ended": None,
            "invocations": [],
        }
