"""The `data` entries of a run document: written once, guarded by the claim, in the shape the field's tools read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from straxflow.config import Config
from straxflow.errors import ClaimLost, RunDbError
from straxflow.rundb.client import Document, RunDb
from straxflow.rundb.rundoc import data_field, query_for

KEY = ("type", "host", "location")


@dataclass(frozen=True)
class Entries:
    """The entries of one run, which a claim (its batch and token) lets us write."""

    db: RunDb
    config: Config
    campaign: str
    run: str
    batch: str
    token: int

    @property
    def _field(self) -> str:
        return data_field(self.campaign, self.config)

    @property
    def _guard(self) -> Document:
        ours = f"straxflow.{self.campaign}"
        return {**query_for(self.run, self.config), f"{ours}.claim.batch": self.batch, f"{ours}.token": self.token}

    def add(self, entries: list[Document]) -> list[Document]:
        """Make sure that the entries stand in the run's document, in one atomic write; those there stay as they are.

        Returns:
            the entries as they stand in the document.

        Raises:
            ClaimLost: if the run is not ours any more; nothing is written then.
        """
        for _ in range(10):
            document = self.db.runs.find_one(self._guard, {self._field: 1})
            if document is None:
                raise ClaimLost(f"run {self.run}: taken over by another invocation; nothing was registered")
            # what others wrote may be anything
            there = {_key(e): e for e in entries_in(document, self._field) if all(isinstance(k, str) for k in _key(e))}
            missing = [e for e in entries if _key(e) not in there]
            if not missing:
                return [there[_key(e)] for e in entries]
            absent = [{self._field: {"$elemMatch": {k: e[k] for k in KEY}}} for e in missing]
            self.db.runs.update_one({**self._guard, "$nor": absent}, {"$push": {self._field: {"$each": missing}}})
        raise RunDbError(f"run {self.run}: the data entries could not be written in 10 tries; others write them too")

    def retire(self, entry: Document, reason: str) -> None:
        """Move an entry to `deleted_data`, in one atomic write, before its files are dropped: a copy that is about to
        go must not be counted on by anybody else's cleaner.

        Raises:
            ClaimLost: if the run is not ours any more.
        """
        key = {k: entry[k] for k in KEY}
        gone = {**entry, "deleted_at": self.db.now(), "deleted_by": "straxflow", "reason": reason}
        deleted = self._field.removesuffix("data") + "deleted_data"
        moved = self.db.runs.update_one(
            {**self._guard, self._field: {"$elemMatch": key}}, {"$pull": {self._field: key}, "$push": {deleted: gone}}
        )
        if moved.matched_count == 0 and self.db.runs.find_one(self._guard, {"_id": 1}) is None:
            raise ClaimLost(f"run {self.run}: taken over by another invocation; nothing was dropped")


def entries_in(document: Document, field: str) -> list[Document]:
    """The well-formed entries of a document."""
    value: object = document
    for name in field.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _key(entry: Document) -> tuple[object, ...]:
    return tuple(entry.get(k) for k in KEY)


def jsonable(entry: Document) -> Document:
    """An entry as a receipt can hold it: dates as ISO text."""
    return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in entry.items()}
