"""The indexes that the claim queries need: which are missing, and making them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pymongo import DESCENDING

from straxflow.config.sections.states import States
from straxflow.rundb.client import RunDb
from straxflow.rundb.pending import INDEXES, campaign_indexes

Keys = list[tuple[str, int]]


def missing(db: RunDb, campaign: str, states: States | None = None) -> list[Keys]:
    """Indexes that no existing one stands in for; `states` name fields of other tools that tell what is pending."""
    theirs = [[(name, 1), ("number", DESCENDING)] for name, f in states.fields.items() if f.wanted] if states else []
    there = [_forward(index["key"]) for index in db.runs.index_information().values()]
    wanted = [*INDEXES, *campaign_indexes(campaign), *theirs]
    return [keys for keys in wanted if not any(found[: len(keys)] == _forward(keys) for found in there)]


def create(db: RunDb, keys: Keys) -> None:
    """Make an index."""
    db.runs.create_index(keys)


def describe(keys: Keys) -> str:
    """An index in words."""
    return " + ".join(name if direction > 0 else f"{name} (newest first)" for name, direction in keys)


def _forward(keys: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    # an index is read backwards as well as forwards; others than plain ones ("text") match nothing of ours
    if any(not isinstance(direction, (int, float)) for _, direction in keys):
        return []
    sign = 1 if keys[0][1] > 0 else -1
    return [(name, int(direction * sign)) for name, direction in keys]
