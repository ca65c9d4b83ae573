"""What is to be expected of a run before it is here, by the rate that the DAQ measured."""

from __future__ import annotations

from straxflow.receipts import RunFacts


def rate_of(facts: RunFacts) -> float | None:
    """The DAQ's average data rate, of all detectors together, MB/s; None if it is not known."""
    rates = [rate.get("avg") for rate in facts.rate.values() if isinstance(rate, dict)]
    known = [rate for rate in rates if isinstance(rate, (int, float))]
    return sum(known) if known else None


def rated_bytes(facts: RunFacts) -> int:
    """Expected size of the live data: the rate times the run's length; 0 if it is not known."""
    return int((rate_of(facts) or 0) * 1e6 * facts.seconds)
