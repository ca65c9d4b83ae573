"""Times as a person gives them: a date, a time of UTC, or how long ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from straxflow.errors import UsageError
from straxflow.receipts import now

FORMS = "a date (2026-11-30), a time of UTC (2026-11-30T14:00), or how long ago (90min, 12h, 7d)"
_UNITS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str, option: str) -> datetime:
    """The moment that a word means.

    Raises:
        UsageError: naming the word and what is allowed.
    """
    ago = re.fullmatch(r"(\d{1,6})(s|min|h|d|w)", text)
    try:
        if ago:
            return now() - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise UsageError(f"{option} {text}: expected {FORMS}") from None


def length_s(text: str, option: str) -> float:
    """Seconds that a length of time (90min, 12h) means.

    Raises:
        UsageError: naming the word and what is allowed.
    """
    given = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)(s|min|h|d|w)", text)
    if not given:
        raise UsageError(f"{option} {text}: expected a length of time, such as 90min, 12h or 7d")
    return timedelta(**{_UNITS[given[2]]: float(given[1])}).total_seconds()
