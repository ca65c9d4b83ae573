"""Runs that nobody but a person can bring on."""

from __future__ import annotations

from straxflow.config import Config
from straxflow.rundb.client import Document
from straxflow.rundb.rundoc import status_field


def left_to_a_person(config: Config, campaign: str) -> Document:
    """The query for failed runs that are never due again: failed too often, or their data are damaged."""
    ours, field = f"straxflow.{campaign}", status_field(campaign, config)
    failed: Document = {"$or": [{field: "failed"}, {f"{field}.status": "failed"}]}
    never: Document = {
        "$or": [
            {f"{ours}.failures": {"$gte": config.failures.give_up_after}},
            # only runs that straxflow has worked on: the failures of an older tool are its own
            {f"{ours}.token": {"$exists": True}, f"{ours}.due": None},
        ]
    }
    return {f"{ours}.claim.batch": {"$exists": False}, "$and": [failed, never]}
