"""The history of attempts in straxflow's own collection: who tried what on which run, where, and how it ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from pydantic import ValidationError
from pymongo import DESCENDING, ReplaceOne

from straxflow.attempts import Attempt, AttemptFile
from straxflow.config import Config
from straxflow.receipts import now
from straxflow.rundb.client import Document, RunDb

COLLECTION = "attempts"
INDEXES = (
    [("campaign", 1), ("run", 1), ("started", DESCENDING)],
    [("started", DESCENDING)],
)


def id_of(config: Config, campaign: str, file: AttemptFile) -> str:
    """The id of an attempt in the database: told by its file's name, so that writing it again changes nothing."""
    attempt = file.attempt
    return f"{config.site}/{campaign}/{attempt.run}/{attempt.product}/{file.path.stem}"


def news(db: RunDb, config: Config, campaign: str, run: str, files: Iterable[AttemptFile]) -> list[AttemptFile]:
    """The attempts of a run that the database does not know as they stand in their files."""
    rows = db.ours(COLLECTION).find({"site": config.site, "campaign": campaign, "run": run}, {"outcome": 1})
    known = {row["_id"]: row.get("outcome") for row in rows}
    oldest = db.now() - timedelta(days=config.history.days)
    newest = sorted(files, key=lambda file: file.attempt.started, reverse=True)[: config.history.per_run]
    return [
        file
        for file in newest
        if file.attempt.started >= oldest and known.get(id_of(config, campaign, file), "") != file.attempt.outcome
    ]


def record(db: RunDb, config: Config, campaign: str, files: Iterable[AttemptFile]) -> int:
    """Write attempts as they stand in their files, over what was known of them; how many were sent."""
    oldest = now() - timedelta(days=config.history.days)
    newest_first = sorted(files, key=lambda file: file.attempt.started, reverse=True)
    by_run: dict[str, int] = {}
    writes = []
    for file in newest_first:
        attempt = file.attempt
        by_run[attempt.run] = by_run.get(attempt.run, 0) + 1
        if attempt.started >= oldest and by_run[attempt.run] <= config.history.per_run:
            document = {"_id": id_of(config, campaign, file), "site": config.site, "campaign": campaign}
            document |= attempt.model_dump()
            writes.append(ReplaceOne({"_id": document["_id"]}, document, upsert=True))
    for begin in range(0, len(writes), 500):
        db.ours(COLLECTION).bulk_write(writes[begin : begin + 500], ordered=False)
    return len(writes)


def prune(db: RunDb, config: Config, campaign: str, runs: Iterable[str]) -> int:
    """Drop this site's attempts that are too old, and of these runs those beyond `history.per_run`; how many."""
    for keys in INDEXES:
        db.ours(COLLECTION).create_index(keys)
    ours = {"site": config.site, "campaign": campaign}
    oldest = db.now() - timedelta(days=config.history.days)
    dropped = db.ours(COLLECTION).delete_many({**ours, "started": {"$lt": oldest}}).deleted_count
    for run in runs:
        rows = db.ours(COLLECTION).find({**ours, "run": run}, {"started": 1}).sort("started", DESCENDING)
        surplus = [row["_id"] for row in rows.skip(config.history.per_run)]
        if surplus:
            dropped += db.ours(COLLECTION).delete_many({"_id": {"$in": surplus}}).deleted_count
    return dropped


def history_of(db: RunDb, campaign: str, run: str) -> list[Attempt]:
    """All attempts on a run that the database knows, of all sites, oldest first."""
    rows = db.ours(COLLECTION).find({"campaign": campaign, "run": run}).sort("started", DESCENDING)
    return [attempt for row in reversed(list(rows)) if (attempt := _attempt(row))]


def recent(db: RunDb, campaign: str, query: Mapping[str, Any] | None = None, limit: int = 100) -> list[Attempt]:
    """The newest attempts of all runs (that fit a further query on their fields), newest first."""
    rows = db.ours(COLLECTION).find({"campaign": campaign, **(query or {})}).sort("started", DESCENDING).limit(limit)
    return [attempt for row in rows if (attempt := _attempt(row))]


def _attempt(row: Document) -> Attempt | None:
    """An attempt from the database; None if somebody else's hand made it unreadable."""
    try:
        return Attempt.model_validate({k: v for k, v in row.items() if k not in ("_id", "site", "campaign")})
    except ValidationError:
        return None
