"""Who did what: each change that a person made by a command, kept in a collection of the run database."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymongo import DESCENDING

from straxflow.config import Config
from straxflow.rundb.client import Document, RunDb

COLLECTION = "actions"
RUNS_EACH = 5000
"""Runs in one document at most: a document has a largest size."""


@dataclass(frozen=True)
class Action:
    """One command of a person."""

    time: datetime
    user: str
    host: str
    site: str
    command: str
    reason: str | None
    details: Mapping[str, Any]

    def __str__(self) -> str:
        what = ", ".join(f"{key} {value}" for key, value in self.details.items())
        why = f": {self.reason}" if self.reason else ""
        return f"{self.time:%F %T} {self.user}@{self.host} {self.command}{f' ({what})' if what else ''}{why}"


def user_name() -> str:
    """The name of the person at the keyboard, as far as the system knows it."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def record(
    db: RunDb,
    config: Config,
    campaign: str,
    command: str,
    runs: Sequence[str],
    reason: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write down what the user of this process has just done to these runs (none: to the site or the campaign)."""
    actions = db.ours(COLLECTION)
    actions.create_index([("campaign", 1), ("runs", 1), ("time", DESCENDING)])
    common: Document = {
        "time": db.now(),
        "user": user_name(),
        "host": socket.gethostname(),
        "site": config.site,
        "campaign": campaign,
        "command": command,
        "reason": reason,
        "details": dict(details or {}),
    }
    blocks = [list(runs[i : i + RUNS_EACH]) for i in range(0, len(runs), RUNS_EACH)] or [[]]
    actions.insert_many([{**common, "runs": block} for block in blocks])


def of_run(db: RunDb, campaign: str, run: str, most: int = 50) -> list[Action]:
    """What people did to a run by commands, newest first."""
    return _read(db, {"campaign": campaign, "runs": run}, most)


def recent(db: RunDb, campaign: str, most: int = 50) -> list[Action]:
    """What people did by commands, newest first."""
    return _read(db, {"campaign": campaign}, most)


def _read(db: RunDb, query: Document, most: int) -> list[Action]:
    found = db.ours(COLLECTION).find(query, {"runs": 0}).sort("time", DESCENDING).limit(most)
    return [
        Action(
            time=document["time"],
            user=str(document.get("user")),
            host=str(document.get("host")),
            site=str(document.get("site")),
            command=str(document.get("command")),
            reason=document.get("reason"),
            details=document.get("details") or {},
        )
        for document in found
        if isinstance(document.get("time"), datetime)
    ]
