"""The failure law: what is remembered of a failed run, when it is due again, and what of it is then still made.

Everything here stands in a run document under `straxflow.<campaign>`; a person who sets a run to pending wipes it out.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from straxflow.attempts import Attempt
from straxflow.config import Config
from straxflow.plan import Standing
from straxflow.settings import failure_settings

REMEMBERED = ("due", "wait_until", "failures", "waits", "products_failed", "settings")
"""`failures` and `waits` count, `due` and `wait_until` say when a run is tried again by itself, `settings` with which
configuration a product of it failed for good, and `products_failed` tells of each product: `count`, `step`, `reason`,
`log`, `cause`, `permanent` (damaged, misconfigured), `settings`, `time`."""

LONGEST = 1000
"""Characters of a reason that are kept of a product."""


@dataclass
class Verdict:
    """What giving a run back changes in its document, by field of straxflow's own part, and the reason to show.

    `settled`: it is not tried again by itself.
    """

    sets: dict[str, Any] = field(default_factory=dict)
    unsets: set[str] = field(default_factory=set)
    reason: str | None = None
    settled: bool = False
    count: int = 0


def judge(config: Config, part: Mapping[str, Any], standing: Standing, now: datetime) -> Verdict:
    """What follows from how a run stands, by what is remembered of it."""
    law = config.failures
    failed = _remember(config, part, standing, now)
    if standing.state == "done" or (standing.state == "reached" and not failed):
        return Verdict(unsets=set(REMEMBERED), reason=standing.reason)
    found = Verdict(reason=standing.reason)
    _put(found, "products_failed", failed or None)
    found.count = number(part, "failures") + (standing.state in ("failed", "damaged"))
    _put(found, "failures", found.count or None)
    if standing.state == "waiting":
        waits = number(part, "waits")
        found.sets |= {"waits": waits + 1, "wait_until": now + _pause(config, waits, 2)}
        return found
    if standing.state in ("pending", "reached"):
        return found
    _put(found, "wait_until", None)
    found.settled = standing.state != "failed" or found.count >= law.give_up_after
    _put(found, "due", None if found.settled else now + _pause(config, found.count - 1, law.growth))
    settings = failure_settings(config)
    _put(found, "settings", settings if any(one["settings"] == settings for one in failed.values()) else None)
    if standing.state == "failed" and found.settled:
        found.reason = f"{standing.reason}; failed {found.count} times, so it is left to a person"
    elif standing.state == "misconfigured":
        found.reason = f"{standing.reason}; not tried again until the settings change"
    return found


def left_out(config: Config, mode: str, part: Mapping[str, Any]) -> dict[str, str]:
    """Products that are not made of a run any more, sources first, each with the reason: those that fail for good,
    those that `failures.fewer_products` gives up, and what is made from them."""
    failed = failed_products(part)
    settings = failure_settings(config)
    found: dict[str, str] = {}
    for name in config.products_for(mode):
        source = config.products[name].source
        if name in failed and (how := _given_up(config, name, failed[name], settings)):
            found[name] = f"{how}: {failed[name]['step']}: {failed[name]['reason']}"
        elif source in found:
            found[name] = f"made from {source}"
    return found


def _given_up(config: Config, name: str, failed: Mapping[str, Any], settings: str) -> str | None:
    """Why a product is not tried again by itself, if so."""
    permanent = failed["permanent"]
    if permanent == "damaged" or (permanent == "misconfigured" and failed["settings"] == settings):
        return str(permanent)
    limits = [times for times, kept in config.failures.fewer_products.items() if name not in kept]
    return f"given up after {failed['count']} failures" if failed["count"] >= min(limits, default=10**9) else None


def failed_products(part: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What is remembered of products that failed; anything malformed is passed over."""
    remembered = part.get("products_failed")
    rows = remembered.items() if isinstance(remembered, Mapping) else ()
    return {
        str(name): {
            **one,
            "count": number(one, "count"),
            "step": one.get("step"),
            "reason": one.get("reason"),
            "permanent": one.get("permanent"),
            "settings": one.get("settings"),
        }
        for name, one in rows
        if isinstance(one, Mapping)
    }


def number(part: Mapping[str, Any], name: str) -> int:
    """A count in a document, 0 if there is none."""
    value = part.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _remember(config: Config, part: Mapping[str, Any], standing: Standing, now: datetime) -> dict[str, dict[str, Any]]:
    """What is remembered of each product from now on."""
    failed = failed_products(part)
    for name in standing.made:
        failed.pop(name, None)
    for name, attempt in standing.failures.items():
        if attempt.outcome != "retry":
            before = failed[name]["count"] if name in failed else 0
            failed[name] = _told(config, attempt, before, now)
    return failed


def _told(config: Config, attempt: Attempt, before: int, now: datetime) -> dict[str, Any]:
    permanent = attempt.outcome if attempt.outcome in ("damaged", "misconfigured") else None
    return {
        "count": before + (permanent != "misconfigured"),
        "step": attempt.step,
        "reason": (attempt.reason or "")[:LONGEST],
        "log": attempt.log,
        "cause": attempt.cause,
        "permanent": permanent,
        "settings": failure_settings(config) if permanent == "misconfigured" else None,
        "time": now,
    }


def _pause(config: Config, times: int, growth: float) -> timedelta:
    law = config.failures
    return timedelta(seconds=law.backoff_s * random.uniform(0.5, 1.5) * growth ** min(times, law.growth_steps))


def _put(verdict: Verdict, name: str, value: Any) -> None:
    if value is None:
        verdict.unsets.add(name)
    else:
        verdict.sets[name] = value
