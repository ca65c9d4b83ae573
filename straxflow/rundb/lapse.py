"""When a claim, or a watcher's lease, may be taken over."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from straxflow.owner import Owner


def claim_lapsed(claim: Any, now: Any, default_lease_s: float) -> bool:
    """Whether a claim may be taken over: its owner is provably dead, or its lease is over.

    One that was renewed in the future is of a clock that was wrong: whoever is alive renews it by the right one soon.
    """
    try:
        owner = Owner.from_dict(claim["owner"])
        lease = timedelta(seconds=float(claim.get("lease_s", default_lease_s)))
        return owner.is_dead() or abs(now - claim["renewed"]) > lease
    except (KeyError, TypeError, ValueError, OverflowError):
        return True
