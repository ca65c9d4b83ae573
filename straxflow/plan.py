"""Which receipts make a run complete at this site, and how it stands: told by the receipts and attempts alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Literal

from straxflow import attempts
from straxflow.attempts import Attempt
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

NOTHING: Mapping[str, str] = MappingProxyType({})

RunState = Literal["done", "reached", "failed", "damaged", "misconfigured", "incomplete", "waiting", "pending"]
"""`incomplete`: all is made but what was given up."""

STATE_AFTER: dict[str, RunState] = {
    "damaged": "damaged",
    "misconfigured": "misconfigured",
    "failed": "failed",
    "killed": "failed",
    "retry": "waiting",
}
"""How a product stands after an attempt with this outcome, worst first; other outcomes leave it pending."""


def available(config: Config, state: State, run: str) -> bool:
    """Whether this site can do anything for a run: where transfer is left out, live data that it needs must be here."""
    return "transfer" in config.steps or not config.needs_live or state.path(run, LIVE, Transferred).is_file()


def receipts_of(
    config: Config, run: str, mode: str, products: Sequence[str] | None = None, left_out: Collection[str] = ()
) -> list[str]:
    """All receipts, relative to the state folder, that this site's steps leave for a run of this mode.

    If only some of its products are asked for (`products`), nothing is released; what is `left_out` has failed too
    often, the rest is made and released without it.
    """
    receipts = _live_receipts(config, run)
    for product in config.products_for(mode) if products is None else products:
        if product not in left_out:
            receipts += _product_receipts(config, run, product)
    if "release" in config.steps and products is None:
        receipts.append(f"runs/{run}/{Released.name}")
    return receipts


def _live_receipts(config: Config, run: str) -> list[str]:
    models = (Transferred, Registered) if "transfer" in config.steps else ()
    return [f"runs/{run}/{LIVE}/{model.name}" for model in models]


def _product_receipts(config: Config, run: str, product: str) -> list[str]:
    return [f"runs/{run}/{product}/{RECEIPTS[step].name}" for step in RECEIPTS if step in config.steps]


def final_receipts(
    config: Config, run: str, mode: str, products: Sequence[str] | None = None, left_out: Collection[str] = ()
) -> list[str]:
    """Those of a run's receipts that are made last: one for the run, or one for each product."""
    receipts = receipts_of(config, run, mode, products, left_out)
    if "release" in config.steps and products is None:
        return receipts[-1:]
    made = [step for step in RECEIPTS if step in config.steps] if products != [] else []
    last = RECEIPTS[made[-1]].name if made else Registered.name
    return [receipt for receipt in receipts if receipt.endswith(f"/{last}")]


def wanted_of(
    config: Config,
    state: State,
    run: str,
    mode: str,
    products: Sequence[str] | None = None,
    left_out: Collection[str] = (),
) -> list[str]:
    """Receipts to ask for so that all of a run's come to stand.

    Of a run that has none yet the last ones bring all others; else one that was removed in between has to be named.
    """
    receipts = receipts_of(config, run, mode, products, left_out)
    if any((state.folder / receipt).exists() for receipt in receipts):
        return receipts
    arrived = f"runs/{run}/{LIVE}/{Registered.name}"
    last = final_receipts(config, run, mode, products, left_out)
    # nothing but a release needs the registration of the live copy
    released = "release" in config.steps and products is None
    return [arrived, *last] if arrived in receipts and not released and arrived not in last else last


@dataclass(frozen=True)
class Standing:
    """How a run stands: of each product (or `live`) that failed the attempt that tells why, and what is made."""

    state: RunState
    reason: str | None = None
    log: str | None = None
    failures: Mapping[str, Attempt] = field(default_factory=dict)
    made: frozenset[str] = frozenset()


def standing(
    config: Config,
    state: State,
    run: str,
    mode: str,
    since: datetime | None = None,
    products: Sequence[str] | None = None,
    left_out: Mapping[str, str] = NOTHING,
) -> Standing:
    """How a run stands by its attempts (begun after `since`) and its receipts: of `products`, if only some are asked
    for, and without those that are `left_out` (with the reason).

    A failed attempt that no later one made good keeps a run from being done, whatever receipts are left of earlier
    passes. What can be mended by another try comes before what cannot.
    """
    expected = receipts_of(config, run, mode, products, left_out)
    missing = {receipt for receipt in expected if not (state.folder / receipt).is_file()}
    failures = {} if since is None and not missing else _failures(state, run, since, left_out)
    wanted = [p for p in (config.products_for(mode) if products is None else products) if p not in left_out]
    parts = [LIVE, *wanted] if "transfer" in config.steps else wanted
    receipts = {LIVE: _live_receipts(config, run)} | {p: _product_receipts(config, run, p) for p in wanted}
    made = frozenset(p for p in parts if p not in failures and missing.isdisjoint(receipts[p]))
    outcomes = {STATE_AFTER[str(attempt.outcome)] for attempt in failures.values()}
    reason = "; ".join(f"{a.step} of {a.product}: {a.reason}" for a in failures.values()) or None
    log = next((str(state.folder / attempt.log) for attempt in failures.values()), None)

    def stands(word: RunState, text: str | None = reason) -> Standing:
        return Standing(word, text, log, failures, made)

    for word in ("failed", "waiting"):
        if word in outcomes:
            return stands(word)
    if any(not missing.isdisjoint(receipts[p]) and not _blocked(config, p, failures) for p in parts):
        return stands("pending")
    for word in ("damaged", "misconfigured"):
        if word in outcomes:
            return stands(word)
    if missing:
        return stands("pending")
    if products is not None:
        return stands("reached", ", ".join([LIVE_ONLY, *products]))
    if left_out:
        return stands("incomplete", _incomplete(wanted, left_out))
    return stands("done") if "register" in config.steps else stands("reached", "reached " + " ".join(config.steps))


def _failures(state: State, run: str, since: datetime | None, left_out: Collection[str]) -> dict[str, Attempt]:
    """Of each product whose last attempts failed the worst one; the worst first."""
    last = attempts.deciding((file.attempt for file in attempts.all_of(state, run)), since)
    worst: dict[str, Attempt] = {}
    for outcome in STATE_AFTER:
        for attempt in last.values():
            if attempt.outcome == outcome and attempt.product not in left_out:
                worst.setdefault(attempt.product, attempt)
    return worst


def _blocked(config: Config, product: str, failures: Collection[str]) -> bool:
    """Whether a product, or what it is made from, failed."""
    while product in config.products and product not in failures:
        product = config.products[product].source
    return product in failures


def _incomplete(made: Sequence[str], left_out: Mapping[str, str]) -> str:
    """Which products are made and which are not, by reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        reasons.setdefault(reason, []).append(name)
    told = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
    return f"{', '.join(made) or 'nothing'} made; left out: {told}"
