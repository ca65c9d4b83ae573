"""Which receipts make a run complete at this site, and how it stands: told by the receipts and attempts alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from straxflow import attempts
from straxflow.config import LIVE, Config
from straxflow.receipts import Checksums, Processed, Receipt, Registered, Released, State, Stored

LAST_RECEIPT: dict[str, type[Receipt]] = {
    "process": Processed,
    "checksum": Checksums,
    "move_out": Stored,
    "register": Registered,
}

RunState = Literal["done", "reached", "failed", "damaged", "waiting", "pending"]


def leaves(config: Config, run: str, mode: str) -> list[str]:
    """The receipts, relative to the state folder, that this site's steps end in for a run of this mode."""
    if "release" in config.steps:
        return [f"runs/{run}/{Released.name}"]
    live = [f"runs/{run}/{LIVE}/{Registered.name}"] if "transfer" in config.steps else []
    last = [LAST_RECEIPT[step] for step in config.steps if step in LAST_RECEIPT]
    if not last:
        return live
    final = max(last, key=list(LAST_RECEIPT.values()).index)
    return live + [f"runs/{run}/{product}/{final.name}" for product in config.products_for(mode)]


@dataclass(frozen=True)
class Standing:
    """How a run stands."""

    state: RunState
    reason: str | None = None
    log: str | None = None


def standing(config: Config, state: State, run: str, mode: str, since: datetime | None = None) -> Standing:
    """How a run stands by its receipts and, where they are not complete, its attempts (begun after `since`)."""
    expected = leaves(config, run, mode)
    if all((state.folder / leaf).is_file() for leaf in expected):
        if "register" in config.steps:
            return Standing("done")
        return Standing("reached", "reached " + " ".join(config.steps))
    last: dict[tuple[str, str], attempts.Attempt] = {}
    for file in attempts.all_of(state, run):
        attempt = file.attempt
        if since is None or attempt.started >= since:
            last[attempt.product, attempt.step] = attempt
    kinds: tuple[tuple[str, RunState], ...] = (
        ("damaged", "damaged"),
        ("failed", "failed"),
        ("killed", "failed"),
        ("retry", "waiting"),
    )
    for outcome, result in kinds:
        for attempt in last.values():
            if attempt.outcome == outcome:
                what = f"{attempt.step} of {attempt.product}"
                return Standing(result, f"{what}: {attempt.reason}", attempt.log)
    return Standing("pending")
