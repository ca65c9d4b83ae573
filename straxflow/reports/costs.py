"""What steps have cost so far, told by receipts and attempts: time, CPU, memory and bytes, for each GB of live data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from straxflow import attempts
from straxflow.attempts import Attempt
from straxflow.config import LIVE, Config
from straxflow.errors import StraxflowError
from straxflow.fsio import MARKER
from straxflow.receipts import Processed, State, Transferred

SAMPLE = 200
"""Runs that are looked at, the newest."""
ENOUGH = 3
"""Runs of a mode that tell more of its runs than those of all modes do."""


@dataclass(frozen=True)
class Cost:
    """What one step of one product (or of `live`) took in one run."""

    run: str
    mode: str
    product: str
    step: str
    gigabytes: float
    """Of the run's live data."""
    run_seconds: float
    out_bytes: int
    """Of what the product holds."""
    seconds: float
    cpu_seconds: float
    peak_rss_mb: float


@dataclass(frozen=True)
class Rate:
    """Medians over runs, for each GB of live data."""

    product: str
    step: str
    runs: int
    mode: str | None
    """None: of runs of all modes."""
    seconds_per_gb: float
    cpu_s_per_gb: float
    out_per_gb: float
    """Bytes of the product."""
    peak_rss_mb: float


def recent_costs(config: Config, state: State, since: datetime | None = None, most: int = SAMPLE) -> list[Cost]:
    """What the newest runs (begun after `since`) took, as far as they have come."""
    found: list[Cost] = []
    runs = 0
    for run in newest_first(state.all_runs()):
        if runs >= most:
            break
        try:
            facts = state.facts(run)
            costs = (
                list(_costs_of(config, state, run, facts.mode, facts.seconds))
                if since is None or facts.start >= since
                else []
            )
        except (StraxflowError, OSError):
            continue
        found += costs
        runs += bool(costs)
    return found


def costs_of_site(config: Config, state: State, most: int = SAMPLE) -> list[Cost]:
    """The same; a campaign that has hardly begun goes by what the others took."""
    found = recent_costs(config, state, most=most)
    if len({cost.run for cost in found}) < ENOUGH:
        for folder in sorted(config.folders.state.iterdir()):
            if folder != state.folder and (folder / MARKER).is_file():
                found += recent_costs(config, State(folder), most=most)
    return found


def bytes_per_second(costs: Sequence[Cost], mode: str) -> float | None:
    """How fast live data of a mode come, as the median of past runs; None if there were none."""
    found = {
        cost.run: 1e9 * cost.gigabytes / cost.run_seconds for cost in costs if cost.mode == mode and cost.run_seconds
    }
    return median(found.values()) if found else None


def newest_first(runs: Iterable[str]) -> list[str]:
    """Run ids by the last number in each, the largest first."""

    def key(run: str) -> tuple[int, str]:
        digits = re.findall(r"[0-9]+", run)
        return (int(digits[-1][:18]) if digits else -1, run)

    return sorted(runs, key=key, reverse=True)


def rates(costs: Sequence[Cost], mode: str | None = None) -> dict[tuple[str, str], Rate]:
    """Medians by product and step; of runs of this mode where there are enough, else of all."""
    groups: dict[tuple[str, str], list[Cost]] = {}
    for cost in costs:
        groups.setdefault((cost.product, cost.step), []).append(cost)
    found = {}
    for (product, step), group in groups.items():
        alike = [cost for cost in group if cost.mode == mode]
        chosen = alike if mode is not None and len(alike) >= ENOUGH else group
        found[product, step] = Rate(
            product=product,
            step=step,
            runs=len(chosen),
            mode=mode if chosen is alike else None,
            seconds_per_gb=median(c.seconds / c.gigabytes for c in chosen),
            cpu_s_per_gb=median(c.cpu_seconds / c.gigabytes for c in chosen),
            out_per_gb=median(c.out_bytes / c.gigabytes for c in chosen),
            peak_rss_mb=median(c.peak_rss_mb for c in chosen),
        )
    return found


def _costs_of(config: Config, state: State, run: str, mode: str, seconds: float) -> Iterator[Cost]:
    received = state.find(run, LIVE, Transferred)
    if received is None or not received.bytes:
        return
    last: dict[tuple[str, str], Attempt] = {}
    for file in attempts.all_of(state, run):
        if file.attempt.outcome == "ok":
            last[file.attempt.product, file.attempt.step] = file.attempt
    sizes, adopted = {LIVE: received.bytes}, set[str]()
    for product in config.products_for(mode):
        made = state.find(run, product, Processed)
        if made:
            sizes[product] = made.bytes
            # what was found there already says nothing of what it takes
            adopted |= {product} if made.adopted else set()
    for (product, step), attempt in last.items():
        if product in sizes and attempt.seconds is not None and not (step == "process" and product in adopted):
            yield Cost(
                run=run,
                mode=mode,
                product=product,
                step=step,
                gigabytes=received.bytes / 1e9,
                run_seconds=seconds,
                out_bytes=sizes[product],
                seconds=attempt.seconds,
                cpu_seconds=attempt.cpu_seconds or 0,
                peak_rss_mb=attempt.peak_rss_mb or 0,
            )
