"""Summaries of products in straxflow's own collection, for the online monitor; bounded."""

from __future__ import annotations

from typing import Any

from bson.binary import Binary
from pymongo import DESCENDING

from straxflow import summaries
from straxflow.config import Config
from straxflow.receipts import RunFacts, State
from straxflow.rundb.client import Document, RunDb
from straxflow.summaries import Summary

COLLECTION = "summaries"
KEPT = 5000
"""Summaries of a product, the newest runs'; so many of them with their plot:"""
PLOTS_KEPT = 200


def record(db: RunDb, config: Config, campaign: str, state: State, facts: RunFacts, product: str) -> bool:
    """Write a product's summary over what was known of it; False if there is none."""
    summary = state.find(facts.run, product, Summary)
    if summary is None:
        return False
    picture = summaries.plot_of(state, facts.run, product, summary.plot) if summary.plot else None
    ours = {"site": config.site, "campaign": campaign, "product": product}
    document: Document = {
        "_id": f"{config.site}/{campaign}/{facts.run}/{product}",
        **ours,
        "run": facts.run,
        "number": facts.number,
        "mode": facts.mode,
        "start": facts.start,
        "made": summary.made,
        # a list, since a name of a figure may hold the dots and dollars that field names may not
        "values": [{"name": name, "value": value} for name, value in summary.values.items()],
        "plot": {"kind": summary.plot, "data": Binary(picture)} if picture else None,
    }
    collection = db.ours(COLLECTION)
    collection.create_index([("campaign", 1), ("product", 1), ("number", DESCENDING)])
    collection.replace_one({"_id": document["_id"]}, document, upsert=True)
    _prune(db, ours)
    return True


def newest(db: RunDb, campaign: str, product: str, limit: int) -> list[Document]:
    """A product's summaries of the newest runs, newest first, without the plots themselves."""
    found = db.ours(COLLECTION).find({"campaign": campaign, "product": product}, {"plot.data": 0})
    return list(found.sort("number", DESCENDING).limit(limit))


def plot(db: RunDb, campaign: str, run: str, product: str) -> tuple[str, bytes] | None:
    """Kind and content of a plot."""
    found = db.ours(COLLECTION).find_one({"campaign": campaign, "run": run, "product": product}, {"plot": 1})
    picture: Any = (found or {}).get("plot")
    if not isinstance(picture, dict) or picture.get("kind") not in summaries.KINDS:
        return None
    data = picture.get("data")
    return (str(picture["kind"]), bytes(data)) if isinstance(data, bytes) else None


def _prune(db: RunDb, ours: Document) -> None:
    collection = db.ours(COLLECTION)

    def beyond(query: Document, kept: int) -> list[Any]:
        rows = collection.find(query, {"_id": 1}).sort("number", DESCENDING).skip(kept)
        return [row["_id"] for row in rows]

    if old := beyond({**ours, "plot": {"$ne": None}}, PLOTS_KEPT):
        collection.update_many({"_id": {"$in": old}}, {"$set": {"plot": None}})
    if old := beyond(ours, KEPT):
        collection.delete_many({"_id": {"$in": old}})
