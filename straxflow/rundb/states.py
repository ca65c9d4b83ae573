"""How states stand in a run document: per product under `straxflow`, and in the fields that other tools read."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from straxflow.config import Config
from straxflow.plan import RunState
from straxflow.progress import RELEASE, ProductStands, ProductState
from straxflow.rundb.client import Document
from straxflow.rundb.rundoc import shares_state, status_field

SUBMITTED = "submitted"
RUNNING = "running"

STATUS: dict[RunState, str] = {
    "done": "done",
    "reached": "pending",
    "failed": "failed",
    "damaged": "failed",
    "misconfigured": "failed",
    "incomplete": "failed",
    "waiting": "pending",
    "pending": "pending",
}
"""What the run document says of a run that stands so."""

SHARED: dict[ProductStands, str] = {
    "running": RUNNING,
    "done": "done",
    "failed": "failed",
    "damaged": "failed",
    "misconfigured": "failed",
    "given up": "failed",
    "waiting": "pending",
    "pending": "pending",
}
"""The same of a product."""


def status_value(config: Config, word: str, time: datetime, host: str, reason: str | None, batch: str) -> Document:
    """The shared state of a run as straxflow writes it; `batch` and `site` tell it from what others write."""
    return {"status": word, "time": time, "host": host, "reason": reason, "batch": batch, "site": config.site}


def is_ours(config: Config, value: object) -> bool:
    """Whether this site's straxflow wrote this state."""
    return isinstance(value, Mapping) and isinstance(value.get("batch"), str) and value.get("site") == config.site


def still_ours(config: Config, campaign: str, batch: str) -> Document:
    """The condition under which the state of a run is still what this batch wrote while it works on it: anybody who
    writes a state of his own writes it without our batch, or another word."""
    field = status_field(campaign, config)
    return {f"{field}.batch": batch, f"{field}.status": {"$in": [SUBMITTED, RUNNING]}}


def as_told(states: Mapping[str, ProductState]) -> dict[str, Document]:
    """States as a document holds them."""
    return {name: {key: _as_stored(value) for key, value in vars(state).items()} for name, state in states.items()}


def details(campaign: str, states: Mapping[str, ProductState], part: Mapping[str, Any]) -> Document:
    """Fields to set so that straxflow's part of a document, as it stands, tells these states; what it tells already
    is left out, and what is malformed is made anew."""
    told = as_told(states)
    release = told.pop(RELEASE, None)
    products = part.get("products", {})
    changes: Document = {}
    if isinstance(products, Mapping):
        for product, fields in told.items():
            changes |= _changes(f"products.{product}", products.get(product, {}), fields)
    elif told:
        changes["products"] = told
    if release:
        changes |= _changes(RELEASE, part.get(RELEASE, {}), release)
    return {f"straxflow.{campaign}.{path}": value for path, value in changes.items()}


def _changes(path: str, was: object, fields: Mapping[str, Any]) -> Document:
    if not isinstance(was, Mapping):
        return {path: dict(fields)}
    # field by field: others keep things of their own beside these
    return {f"{path}.{key}": v for key, v in fields.items() if key not in was or was[key] != v}


def other_fields(config: Config, campaign: str, run: str | None, products: Mapping[str, ProductState]) -> Document:
    """Fields of other tools to set, for a run in this (shared) state and its products; the online campaign's only."""
    found: Document = {}
    if not shares_state(campaign, config):
        return found
    for name, field in config.states.fields.items():
        if field.source == "run":
            state = run
        else:
            state = SHARED[products[field.source].state] if field.source in products else None
        if state in field.values:
            found[name] = field.values[state]
    return found


def _as_stored(value: Any) -> Any:
    """The database keeps milliseconds."""
    return value.replace(microsecond=value.microsecond // 1000 * 1000) if isinstance(value, datetime) else value
