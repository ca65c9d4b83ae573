"""Which receipts make a run complete at this site, and how it stands: told by the receipts and attempts alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from straxflow import attempts
from straxflow.config import LIVE, Config
from straxflow.receipts import Checksums, Processed, Receipt, Registered, Released, State, Stored, Transferred

RECEIPTS: dict[str, type[Receipt]] = {
    "process": Processed,
    "checksum": Checksums,
    "move_out": Stored,
    "register": Registered,
}

LIVE_ONLY = "reached transfer"
"""The reason in the state of a run whose live data is here and of which no product was asked for."""

RunState = Literal["done", "reached", "failed", "damaged", "waiting", "pending"]

STATE_AFTER: dict[str, RunState] = {"damaged": "damaged", "failed": "failed", "killed": "failed", "retry": "waiting"}
"""How a run stands after an attempt with this outcome, worst first; other outcomes leave it pending."""


def available(config: Config, state: State, run: str) -> bool:
    """Whether this site can do anything for a run: where transfer is left out, live data that it needs must be here."""
    return "transfer" in config.steps or not config.needs_live or state.path(run, LIVE, Transferred).is_file()


def receipts_of(config: Config, run: str, mode: str, products: Sequence[str] | None = None) -> list[str]:
    """All receipts, relative to the state folder, that this site's steps leave for a run of this mode.

    If only some of its products are wanted (`products`), nothing is released.
    """
    receipts = []
    if "transfer" in config.steps:
        receipts += [f"runs/{run}/{LIVE}/{model.name}" for model in (Transferred, Registered)]
    for product in config.products_for(mode) if products is None else products:
        receipts += [f"runs/{run}/{product}/{RECEIPTS[step].name}" for step in RECEIPTS if step in config.steps]
    if "release" in config.steps and products is None:
        receipts.append(f"runs/{run}/{Released.name}")
    return receipts


def final_receipts(config: Config, run: str, mode: str, products: Sequence[str] | None = None) -> list[str]:
    """Those of a run's receipts that are made last: one for the run, or one for each product."""
    receipts = receipts_of(config, run, mode, products)
    if "release" in config.steps and products is None:
        return receipts[-1:]
    made = [step for step in RECEIPTS if step in config.steps] if products != [] else []
    last = RECEIPTS[made[-1]].name if made else Registered.name
    return [receipt for receipt in receipts if receipt.endswith(f"/{last}")]


def wanted_of(config: Config, state: State, run: str, mode: str, products: Sequence[str] | None = None) -> list[str]:
    """Receipts to ask for so that all of a run's come to stand.

    Of a run that has none yet the last ones bring all others; else one that was removed in between has to be named.
    """
    receipts = receipts_of(config, run, mode, products)
    if any((state.folder / receipt).exists() for receipt in receipts):
        return receipts
    arrived = f"runs/{run}/{LIVE}/{Registered.name}"
    last = final_receipts(config, run, mode, products)
    # nothing but a release needs the registration of the live copy
    released = "release" in config.steps and products is None
    return [arrived, *last] if arrived in receipts and not released and arrived not in last else last


@dataclass(frozen=True)
class Standing:
    """How a run stands."""

    state: RunState
    reason: str | None = None
    log: str | None = None


def standing(
    config: Config,
    state: State,
    run: str,
    mode: str,
    since: datetime | None = None,
    products: Sequence[str] | None = None,
) -> Standing:
    """How a run stands by its attempts (begun after `since`) and its receipts (of `products`, if not all are wanted).

    A failed attempt that no later one made good keeps a run from being done, whatever receipts are left of earlier
    passes.
    """
    last: dict[tuple[str, str], attempts.Attempt] = {}
    for file in attempts.all_of(state, run):
        attempt = file.attempt
        if since is None or attempt.started >= since:
            last[attempt.product, attempt.step] = attempt
    complete = all((state.folder / receipt).is_file() for receipt in receipts_of(config, run, mode, products))
    for outcome, result in STATE_AFTER.items():
        for attempt in last.values():
            if attempt.outcome == outcome and not (complete and since is None):
                return Standing(
                    result, f"{attempt.step} of {attempt.product}: {attempt.reason}", str(state.folder / attempt.log)
                )
    if complete and products is not None:
        return Standing("reached", ", ".join([LIVE_ONLY, *products]))
    if complete and "register" in config.steps:
        return Standing("done")
    return Standing("reached", "reached " + " ".join(config.steps)) if complete else Standing("pending")
