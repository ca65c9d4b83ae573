"""How far each product of a run has come, told by its receipts and attempt files alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from straxflow.attempts import Attempt, deciding
from straxflow.config import LIVE, Config
from straxflow.owner import Owner
from straxflow.plan import NOTHING, RECEIPTS, STATE_AFTER
from straxflow.receipts import Receipt, Registered, Released, State, Transferred
from straxflow.runfiles import CachedFiles, RunFiles

ProductStands = Literal["running", "done", "failed", "damaged", "misconfigured", "given up", "waiting", "pending"]

RELEASE = "release"
"""The step that concerns all products of a run at once; it is told beside them."""


@dataclass(frozen=True)
class ProductState:
    """How one product (or `live`, or the release of a run) stands. `time`: since when; `size_mb`: once it is made."""

    state: ProductStands
    step: str
    time: datetime | None = None
    reason: str | None = None
    log: str | None = None
    host: str | None = None
    job_id: str | None = None
    size_mb: float | None = None


def chain_of(config: Config, product: str) -> list[tuple[str, type[Receipt]]]:
    """The steps of a product at this site, each with the receipt that it leaves."""
    if product == RELEASE:
        return [(RELEASE, Released)]
    if product == LIVE:
        return [("transfer", Transferred), ("register_live", Registered)]
    return [(step, model) for step, model in RECEIPTS.items() if step in config.steps]


def product_states(
    config: Config,
    state: State,
    run: str,
    mode: str,
    since: datetime | None = None,
    left_out: Mapping[str, str] = NOTHING,
) -> dict[str, ProductState]:
    """How each product of a run stands by its receipts and by its attempts begun after `since`; and `release`.

    Without `since`, a product whose receipts are all there is done, whatever was tried later. What is `left_out` (with
    the reason) and not made is given up.
    """
    cache = CachedFiles()
    seen = cache.look(state, run)
    return states_seen(config, mode, seen, lambda product: cache.size_mb(state, run, product, seen), since, left_out)


def states_seen(
    config: Config,
    mode: str,
    seen: RunFiles,
    size: Callable[[str], float | None],
    since: datetime | None = None,
    left_out: Mapping[str, str] = NOTHING,
) -> dict[str, ProductState]:
    """The same by files that were just looked at."""
    last: dict[str, dict[str, Attempt]] = {}
    for (product, step), attempt in deciding((file.attempt for file in seen.attempts), since).items():
        last.setdefault(RELEASE if step == RELEASE else product, {})[step] = attempt
    live = [LIVE] if "transfer" in config.steps else []
    release = [RELEASE] if RELEASE in config.steps else []
    found = {
        product: _one(
            chain_of(config, product),
            "" if product == RELEASE else f"{product}/",
            seen,
            last.get(product, {}),
            since is not None,
            None if product == RELEASE else size(product),
        )
        for product in [*live, *config.products_for(mode), *release]
    }
    for product, reason in left_out.items():
        if product in found and found[product].state not in ("done", "running"):
            found[product] = replace(found[product], state="given up", reason=reason)
    return found


def _one(
    chain: Sequence[tuple[str, type[Receipt]]],
    folder: str,
    seen: RunFiles,
    last: Mapping[str, Attempt],
    at_work: bool,
    size: float | None,
) -> ProductState:
    missing = next((step for step, model in chain if f"{folder}{model.name}" not in seen.receipts), None)
    made = [seen.receipts[name] for _, model in chain if (name := f"{folder}{model.name}") in seen.receipts]
    when = datetime.fromtimestamp(made[-1] / 1e9, UTC) if made else None
    step = missing or (chain[-1][0] if chain else "process")
    for attempt in last.values():
        if attempt.ended is None and not Owner.from_dict(attempt.owner).is_dead():
            return _of_attempt("running", attempt, attempt.started, size)
    if missing or at_work:
        for outcome, stands in STATE_AFTER.items():
            for attempt in last.values():
                if attempt.outcome == outcome:
                    # STATE_AFTER knows no other states
                    return _of_attempt(stands, attempt, attempt.ended, size)  # type: ignore[arg-type]
    return ProductState("pending" if missing else "done", step, when, size_mb=size)


def _of_attempt(stands: ProductStands, attempt: Attempt, time: datetime | None, size: float | None) -> ProductState:
    return ProductState(
        stands,
        attempt.step,
        time,
        reason=attempt.reason,
        log=attempt.log,
        host=str(attempt.owner.get("host")),
        job_id=attempt.job_id,
        size_mb=size,
    )
