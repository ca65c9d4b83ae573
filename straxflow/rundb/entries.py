"""The `data` entries of a run document: written once, guarded by the claim, in the shape the field's tools read."""

from __future__ import annotations

from datetime import datetime

from straxflow.errors import ClaimLost, RunDbError
from straxflow.rundb.client import Document, RunDb

KEY = ("type", "host", "location")


def add(db: RunDb, campaign: str, number: int, batch: str, token: int, entries: list[Document]) -> list[Document]:
    """Make sure that the entries stand in the run's document, in one atomic write; those there stay as they are.

    Returns:
        the entries as they stand in the document.

    Raises:
        ClaimLost: if the run is not ours any more; nothing is written then.
    """
    ours = f"straxflow.{campaign}"
    guard: Document = {"number": number, f"{ours}.claim.batch": batch, f"{ours}.token": token}
    for _ in range(10):
        document = db.runs.find_one(guard, {"data": 1})
        if document is None:
            raise ClaimLost(f"run {number}: taken over by another invocation; nothing was registered")
        there = {_key(e): e for e in document.get("data") or [] if isinstance(e, dict)}
        missing = [e for e in entries if _key(e) not in there]
        if not missing:
            return [there[_key(e)] for e in entries]
        absent = [{"data": {"$elemMatch": {k: e[k] for k in KEY}}} for e in missing]
        db.runs.update_one({**guard, "$nor": absent}, {"$push": {"data": {"$each": missing}}})
    raise RunDbError(f"run {number}: the data entries could not be written in 10 tries; others write them too")


def retire(db: RunDb, campaign: str, number: int, batch: str, token: int, entry: Document, reason: str) -> None:
    """Move an entry to `deleted_data`, in one atomic write, before its files are dropped: a copy that is about to
    go must not be counted on by anybody else's cleaner.

    Raises:
        ClaimLost: if the run is not ours any more.
    """
    ours = f"straxflow.{campaign}"
    guard: Document = {"number": number, f"{ours}.claim.batch": batch, f"{ours}.token": token}
    key = {k: entry[k] for k in KEY}
    gone = {**entry, "deleted_at": db.now(), "deleted_by": "straxflow", "reason": reason}
    moved = db.runs.update_one(
        {**guard, "data": {"$elemMatch": key}}, {"$pull": {"data": key}, "$push": {"deleted_data": gone}}
    )
    if moved.matched_count == 0 and db.runs.find_one(guard, {"_id": 1}) is None:
        raise ClaimLost(f"run {number}: taken over by another invocation; nothing was dropped")


def _key(entry: Document) -> tuple[object, ...]:
    return tuple(entry.get(k) for k in KEY)


def jsonable(entry: Document) -> Document:
    """An entry as a receipt can hold it: dates as ISO text."""
    return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in entry.items()}
