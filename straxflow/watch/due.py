"""Whether there is work for one more invocation."""

from __future__ import annotations

from collections.abc import Collection

from straxflow.config import Config
from straxflow.invocation import Invocation
from straxflow.receipts import State
from straxflow.rundb.client import RunDb
from straxflow.rundb.pending import Due, anything_due


def look_for_work(
    db: RunDb, config: Config, campaign: str, alive: Collection[str] = (), newer_than: int | None = None
) -> Due:
    """What one more invocation would find; with `newer_than`, among newer runs only."""
    if newer_than is not None:
        config = config.model_copy(update={"runs": config.runs.model_copy(update={"min_run_number": newer_than + 1})})
    state = State(config.folders.state / campaign)
    available = Invocation(config, state, campaign, "watch").available
    return anything_due(db, config, campaign, alive, available)
