"""How much a command touches: runs, bytes and CPU hours, by the receipts of these runs as far as there are any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from straxflow.config import LIVE, Config
from straxflow.errors import StraxflowError
from straxflow.receipts import Processed, State, Transferred

SAMPLE = 200
"""Runs whose receipts are read at most; the others are taken to be like them."""


@dataclass(frozen=True)
class Extent:
    """What so many runs come to; `known` is the number of those whose receipts told."""

    runs: int
    bytes: float = 0
    cpu_hours: float = 0
    known: int = 0

    def __str__(self) -> str:
        runs = f"{self.runs} run{'s' * (self.runs != 1)}"
        if not self.known:
            return f"{runs}; how many bytes and CPU hours is not known: there are no receipts of them"
        factor, unit = next(((f, u) for f, u in ((1e12, "TB"), (1e9, "GB")) if self.bytes >= f), (1e6, "MB"))
        cpu = f"{self.cpu_hours:.1f}" if self.cpu_hours >= 0.1 else "less than 0.1"
        about = "" if self.known == self.runs else f" (about, by the receipts of {self.known} of them)"
        return f"{runs}, {self.bytes / factor:.1f} {unit}, {cpu} CPU hours{about}"

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return {"runs": self.runs, "bytes": int(self.bytes), "cpu_hours": self.cpu_hours, "known": self.known}


def measure(config: Config, state: State, runs: Sequence[str], products: Sequence[str] | None = None) -> Extent:
    """What these runs come to: their live data and products (or some products), and the CPU time these took."""
    step = -(-len(runs) // SAMPLE) or 1
    told = [one for run in runs[::step] if (one := _of_run(config, state, run, products))]
    if not told:
        return Extent(len(runs))
    scale = len(runs) / len(told)
    return Extent(
        runs=len(runs),
        bytes=sum(size for size, _ in told) * scale,
        cpu_hours=sum(cpu for _, cpu in told) * scale / 3600,
        known=len(told),
    )


def _of_run(config: Config, state: State, run: str, products: Sequence[str] | None) -> tuple[int, float] | None:
    size, cpu, found = 0, 0.0, False
    try:
        if products is None and (received := state.find(run, LIVE, Transferred)):
            size, found = received.bytes, True
        for product in products or config.products:
            if made := state.find(run, product, Processed):
                size, cpu, found = size + made.bytes, cpu + made.cpu_seconds, True
    except (StraxflowError, OSError):
        return None
    return (size, cpu) if found else None
