"""How runs stand, told by receipts, attempts and claim files, and by the run database where it answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

from straxflow import attempts, claimfile
from straxflow.attempts import Attempt
from straxflow.config import LIVE, Config
from straxflow.errors import StraxflowError
from straxflow.owner import Owner
from straxflow.plan import standing
from straxflow.receipts import Checksums, Processed, Receipt, Registered, State, Stored, Transferred, now
from straxflow.settings import settings_digest

FURTHEST: tuple[tuple[type[Receipt], str], ...] = (
    (Registered, "registered"),
    (Stored, "stored"),
    (Checksums, "checksummed"),
    (Processed, "processed"),
    (Transferred, "transferred"),
)
ENDED = ("done", "reached")


@dataclass(frozen=True)
class Holder:
    """Who holds the claim on a run. `unknown`: on another host, and the database does not answer."""

    batch: str
    host: str
    pid: int | None
    life: Literal["alive", "dead", "unknown"]

    def __str__(self) -> str:
        return f"{self.host} pid {self.pid} ({self.life})"


@dataclass(frozen=True)
class ProductStatus:
    """How far one product of a run (or `live`) has come."""

    name: str
    reached: str | None
    bytes: int = 0
    records_in: int | None = None
    records_out: int | None = None
    dead_time_ns: int = 0
    outdated: bool = False
    problem: str | None = None

    @property
    def notes(self) -> Iterator[str]:
        """What a person should know of it."""
        if self.records_in is not None and self.records_out is not None and self.records_out < self.records_in:
            lost = self.records_in - self.records_out
            dead = f", dead time {self.dead_time_ns / 1e9:.3g} s" if self.dead_time_ns else ""
            yield f"{self.name}: {lost} of {self.records_in} records lost{dead}"
        if self.outdated:
            yield f"{self.name}: outdated (made with other settings)"
        if self.problem:
            yield self.problem


@dataclass(frozen=True)
class RunStatus:
    """How one run stands."""

    run: str
    state: str
    number: int = -1
    mode: str = "?"
    start: datetime | None = None
    reason: str | None = None
    log: str | None = None
    holder: Holder | None = None
    products: Sequence[ProductStatus] = ()
    attempts: Sequence[Attempt] = field(default=())


Holders = Mapping[str, Holder] | None
"""Claims by run, as the database tells them; None if it does not answer."""


@dataclass(frozen=True)
class Standings:
    """Tells how the runs of a site stand."""

    config: Config
    state: State
    holders: Holders

    @cached_property
    def _digests(self) -> Mapping[str, str]:
        return {name: settings_digest(self.config, name) for name in self.config.products}

    def brief(self, run: str) -> RunStatus:
        """State and reason of a run; nothing of its products."""
        state = self.state
        try:
            facts = state.facts(run)
        except FileNotFoundError:
            facts = None
        except StraxflowError as error:
            return RunStatus(run, "damaged", reason=str(error))
        holder, since = self._holder(run)
        at_work = holder is not None and holder.life == "alive"
        if facts is None:
            return RunStatus(run, "working" if at_work else "pending", holder=holder)
        stands = standing(self.config, state, run, facts.mode, since if at_work else None)
        name: str = stands.state
        reason = stands.reason
        if name in ENDED:
            # the claim file of an ended run is history, unless the database says that it is worked on again
            holder = holder if self.holders is not None else None
        else:
            name = "working" if at_work else name
            reason = reason or self._open_attempts(run)
        log = str(state.folder / stands.log) if stands.log else None
        return RunStatus(run, name, facts.number, facts.mode, facts.start, reason, log, holder)

    def products(self, run: str, mode: str) -> list[ProductStatus]:
        """How far each product of a run has come, the live data first."""
        live = [LIVE] if "transfer" in self.config.steps else []
        return [self._product(run, name) for name in live + self.config.products_for(mode)]

    def attempts(self, run: str) -> list[Attempt]:
        """All that was tried on a run, oldest first."""
        return [file.attempt for file in attempts.all_of(self.state, run)]

    def _product(self, run: str, name: str) -> ProductStatus:
        state = self.state
        reached = next((word for model, word in FURTHEST if state.path(run, name, model).is_file()), None)
        try:
            if name == LIVE:
                received = state.find(run, LIVE, Transferred)
                return ProductStatus(name, reached, received.bytes if received else 0)
            made = state.find(run, name, Processed)
        except StraxflowError as error:
            return ProductStatus(name, reached, problem=str(error))
        if made is None:
            return ProductStatus(name, reached)
        return ProductStatus(
            name,
            reached,
            made.bytes,
            made.records_in if made.source == LIVE else None,
            made.records_out if made.source == LIVE else None,
            made.dead_time_ns,
            outdated=made.settings != self._digests[name],
        )

    def _holder(self, run: str) -> tuple[Holder | None, datetime | None]:
        if self.holders is not None and run not in self.holders:
            return None, None
        try:
            claim = claimfile.read(self.state, run)
        except StraxflowError:
            claim = None
        since = claim.made if claim else None
        if self.holders is not None:
            return self.holders[run], since
        if claim is None:
            return None, None
        owner = Owner.from_dict(claim.owner)
        life: Literal["alive", "dead", "unknown"] = "dead" if owner.is_dead() else "unknown"
        if life == "unknown" and owner.host == Owner.current().host:
            life = "alive"
        return Holder(claim.batch, owner.host, owner.pid, life), since

    def _open_attempts(self, run: str) -> str | None:
        """What is being done, or was interrupted, by the attempts that have no end yet."""
        texts = []
        for attempt in self.attempts(run):
            if attempt.ended is None:
                dead = Owner.from_dict(attempt.owner).is_dead()
                since = f"for {(now() - attempt.started).total_seconds():.0f} s on {attempt.owner['host']}"
                how = "interrupted: its process is gone" if dead else since
                texts.append(f"{attempt.step} of {attempt.product} {how}")
        return "; ".join(texts) or None


def as_json(status: RunStatus) -> dict[str, Any]:
    """For --json."""
    return {
        "run": status.run,
        "state": status.state,
        "number": status.number if status.number >= 0 else None,
        "mode": status.mode,
        "start": status.start.isoformat() if status.start else None,
        "reason": status.reason,
        "log": status.log,
        "holder": vars(status.holder) if status.holder else None,
        "products": [{**vars(p), "notes": list(p.notes)} for p in status.products],
        "attempts": [a.model_dump(mode="json") for a in status.attempts],
    }
