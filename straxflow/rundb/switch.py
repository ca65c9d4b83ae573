"""The switch: a document in the database that turns automatic work on and off for everybody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pymongo.collection import Collection

from straxflow.actions import user_name
from straxflow.config import Config
from straxflow.owner import Owner
from straxflow.rundb.client import Document, RunDb
from straxflow.rundb.rundoc import not_by_a_shadow

Position = Literal["on", "off"]


@dataclass(frozen=True)
class Switch:
    """What the switch says, and who turned it last."""

    on: bool
    text: str
    """In words, with the remedy if it is off."""
    user: str | None = None
    host: str | None = None
    time: datetime | None = None
    reason: str | None = None


def read_switch(db: RunDb, config: Config) -> Switch:
    """Read the switch; without a document it is on. One query on a collection of a few documents."""
    name = config.rundb.switch.name
    document = _collection(db, config).find_one({"name": name})
    if document is None:
        return Switch(True, f"{name} is on (there is no such document in {_collection(db, config).full_name})")
    status = document.get("status")
    user, host, reason = (_text(document, key) for key in ("user", "host", "reason"))
    time = document.get("time")
    time = time.replace(tzinfo=time.tzinfo or UTC) if isinstance(time, datetime) else None
    turned = "".join(
        (f" by {user}" if user else "", f" on {time:%F %T} UTC" if time else "", f": {reason}" if reason else "")
    )
    if status is True or (isinstance(status, str) and status.strip().lower() == "on"):
        return Switch(True, f"{name} is on{turned and ' (turned' + turned + ')'}", user, host, time, reason)
    if status is False or (isinstance(status, str) and status.strip().lower() == "off"):
        text = f"{name} is off{turned and ' (turned' + turned + ')'}: no run is claimed until `straxflow switch on`"
    else:
        # a word that nobody defined was meant to change something, and only off does
        text = f"{name} has status {status!r}, expected on or off; taken for off: correct it by `straxflow switch on`"
    return Switch(False, text, user, host, time, reason)


def set_switch(db: RunDb, config: Config, position: Position, reason: str | None = None) -> Switch:
    """Turn the switch, in one write; what it says now. Other fields of the document stay."""
    not_by_a_shadow(config, "the switch and its document")
    fields: Document = {
        "status": position,
        "time": db.now(),
        "user": user_name(),
        "host": Owner.current().host,
        "reason": reason,
    }
    _collection(db, config).update_one({"name": config.rundb.switch.name}, {"$set": fields}, upsert=True)
    return read_switch(db, config)


def _collection(db: RunDb, config: Config) -> Collection[Document]:
    settings = config.rundb.switch
    return db.database(settings.database).get_collection(settings.collection, codec_options=db.runs.codec_options)


def _text(document: Mapping[str, Any], key: str) -> str | None:
    value = document.get(key)
    return value if isinstance(value, str) and value else None
