"""What would be done for runs, and what it would take, by what past runs took."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from straxflow.config import LIVE, Config
from straxflow.errors import StraxflowError
from straxflow.plan import receipts_of
from straxflow.receipts import Checksums, Processed, Registered, Released, State, Stored, Transferred
from straxflow.reports.costs import Cost, Rate, bytes_per_second, rates
from straxflow.reports.documents import RunRow

STEP_OF = {
    Transferred.name: "transfer",
    Processed.name: "process",
    Checksums.name: "checksum",
    Stored.name: "move_out",
    Registered.name: "register",
    Released.name: "release",
}
LITTLE = ("register", "release")
"""Steps that take next to nothing."""


@dataclass
class Part:
    """One step of one product, over all runs. `unknown`: jobs of which nothing can be told."""

    product: str
    step: str
    jobs: int = 0
    unknown: int = 0
    live_gb: float = 0
    seconds: float = 0
    cpu_seconds: float = 0
    out_bytes: float = 0
    peak_rss_mb: float = 0
    basis: int = 0
    """Past runs that it is told by."""


@dataclass
class Estimate:
    """What it takes to make runs complete at this site."""

    runs: int = 0
    complete: int = 0
    """Runs for which nothing is left to do."""
    guessed: int = 0
    """Runs whose size is taken from their length and past runs of their mode."""
    unsized: int = 0
    """Runs whose size nobody knows: they are in the number of jobs, but in nothing else."""
    outside: int = 0
    """Runs that are being taken, held by a tag, malformed, or of a mode that is not worked on."""
    modes: dict[str, int] = field(default_factory=dict)
    parts: dict[tuple[str, str], Part] = field(default_factory=dict)

    @property
    def jobs(self) -> int:
        """Jobs in all."""
        return sum(part.jobs for part in self.parts.values())

    @property
    def unknown(self) -> int:
        """Jobs that take something of which nothing can be told."""
        return sum(part.unknown for part in self.parts.values() if part.step not in LITTLE)

    @property
    def cpu_hours(self) -> float:
        """CPU time, h."""
        return sum(part.cpu_seconds for part in self.parts.values()) / 3600

    @property
    def seconds(self) -> float:
        """Time of all jobs one after another, s."""
        return sum(part.seconds for part in self.parts.values())

    @property
    def live_bytes(self) -> float:
        """New in the live folder."""
        return sum(part.out_bytes for part in self.parts.values() if part.step == "transfer")

    @property
    def made_bytes(self) -> float:
        """New in staging."""
        return sum(part.out_bytes for part in self.parts.values() if part.step == "process")

    @property
    def stored_bytes(self) -> float:
        """New in the store."""
        return sum(part.out_bytes for part in self.parts.values() if part.step == "move_out")


def estimate(
    config: Config, state: State, rows: Iterable[RunRow], costs: Sequence[Cost], named: bool = False
) -> Estimate:
    """What these runs take (if a person named them, whatever their tags). Nothing of a run is kept, so they may be
    many."""
    found = Estimate()
    by_mode: dict[str, dict[tuple[str, str], Rate]] = {}
    speeds: dict[str, float | None] = {}
    begun = frozenset(state.all_runs())
    for row in rows:
        left = row.state == "taking" or (row.state == "held" and not named)
        if left or not row.run or row.problem or not config.selects_mode(row.mode):
            found.outside += 1
            continue
        found.runs += 1
        missing = list(_missing(config, state, row, row.run in begun))
        if not missing:
            found.complete += 1
            continue
        found.modes[row.mode] = found.modes.get(row.mode, 0) + 1
        if row.mode not in by_mode:
            by_mode[row.mode] = rates(costs, row.mode)
            speeds[row.mode] = bytes_per_second(costs, row.mode)
        size, speed = _known_bytes(state, row) if row.run in begun else row.bytes, speeds[row.mode]
        if size is None and speed is not None and row.seconds:
            size = int(speed * row.seconds)
            found.guessed += 1
        found.unsized += size is None
        for product, step in missing:
            part = found.parts.setdefault((product, step), Part(product, step))
            _add(part, size, by_mode[row.mode].get((product, step)))
    return found


def _add(part: Part, live_bytes: int | None, rate: Rate | None) -> None:
    part.jobs += 1
    if live_bytes is None or (rate is None and part.step not in LITTLE):
        part.unknown += 1
        if live_bytes is not None and part.step == "transfer":
            part.out_bytes += live_bytes  # that much is known without any past
        return
    gigabytes = live_bytes / 1e9
    part.live_gb += gigabytes
    if rate:
        part.seconds += rate.seconds_per_gb * gigabytes
        part.cpu_seconds += rate.cpu_s_per_gb * gigabytes
        part.peak_rss_mb = max(part.peak_rss_mb, rate.peak_rss_mb)
        part.basis = max(part.basis, rate.runs)
        part.out_bytes += live_bytes if part.product == LIVE else rate.out_per_gb * gigabytes


def _known_bytes(state: State, row: RunRow) -> int | None:
    try:
        received = state.find(row.run, LIVE, Transferred)
    except (StraxflowError, OSError):
        received = None
    return received.bytes if received else row.bytes


def _missing(config: Config, state: State, row: RunRow, begun: bool) -> Iterator[tuple[str, str]]:
    """Product and step of each receipt that is not there: none is, unless the run was begun."""
    for receipt in receipts_of(config, row.run, row.mode):
        if not (begun and (state.folder / receipt).is_file()):
            *_, product, name = receipt.split("/")
            step = STEP_OF[name]
            yield (LIVE if step == "release" else product), step
