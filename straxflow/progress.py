"""How far each product of a run has come, told by its receipts and attempt files alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from straxflow.attempts import Attempt, AttemptFile
from straxflow.config import LIVE, Config
from straxflow.errors import StraxflowError
from straxflow.owner import Owner
from straxflow.plan import RECEIPTS, STATE_AFTER
from straxflow.receipts import Processed, Receipt, Registered, Released, State, Transferred

ProductStands = Literal["running", "done", "failed", "damaged", "waiting", "pending"]

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
    files: CachedFiles | None = None,
) -> dict[str, ProductState]:
    """How each product of a run stands by its receipts and by its attempts begun after `since`; and `release`.

    Without `since`, a product whose receipts are all there is done, whatever was tried later.
    """
    files = files or CachedFiles()
    last: dict[str, dict[str, Attempt]] = {}
    for file in files.attempts(state, run):
        attempt = file.attempt
        if since is None or attempt.started >= since:
            owner = RELEASE if attempt.step == RELEASE else attempt.product
            last.setdefault(owner, {})[attempt.step] = attempt
    live = [LIVE] if "transfer" in config.steps else []
    release = [RELEASE] if RELEASE in config.steps else []
    return {
        product: _one(config, state, run, product, last.get(product, {}), since is not None, files)
        for product in [*live, *config.products_for(mode), *release]
    }


def _one(
    config: Config,
    state: State,
    run: str,
    product: str,
    last: dict[str, Attempt],
    at_work: bool,
    files: CachedFiles,
) -> ProductState:
    missing, made = None, None
    for step, model in chain_of(config, product):
        path = state.released(run) if product == RELEASE else state.path(run, product, model)
        try:
            made = path.stat().st_mtime
        except OSError:
            missing = step
            break
    step = missing or (chain_of(config, product) or [("process", Processed)])[-1][0]
    when = datetime.fromtimestamp(made, UTC) if made else None
    size = files.size_mb(state, run, product)
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


Mark = tuple[int, int]


@dataclass
class CachedFiles:
    """Attempt files and receipts, each parsed once for each time it was written: for who looks again and again."""

    _attempts: dict[str, dict[str, tuple[Mark, AttemptFile]]] = field(default_factory=dict)
    _sizes: dict[tuple[str, str], tuple[int, float | None]] = field(default_factory=dict)

    def attempts(self, state: State, run: str) -> Iterator[AttemptFile]:
        """All attempts of a run, oldest first, as `attempts.all_of`."""
        known = self._attempts.setdefault(run, {})
        for path, mark in sorted(_attempt_files(state, run), key=lambda item: item[0].rpartition("/")[2]):
            if path not in known or known[path][0] != mark:
                try:
                    text = Path(path).read_text(encoding="utf-8")
                    known[path] = (mark, AttemptFile(Path(path), Attempt.model_validate_json(text)))
                except (ValidationError, OSError):
                    known.pop(path, None)
                    continue
            yield known[path][1]

    def size_mb(self, state: State, run: str, product: str) -> float | None:
        """Size of what a product holds, MB; None while it is not made."""
        if product == RELEASE:
            return None
        model: type[Transferred | Processed] = Transferred if product == LIVE else Processed
        try:
            written = state.path(run, product, model).stat().st_mtime_ns
            if self._sizes.get((run, product), (0, None))[0] != written:
                made = state.find(run, product, model)
                self._sizes[run, product] = (written, round(made.bytes / 1e6, 3) if made else None)
        except (StraxflowError, OSError):
            return None
        return self._sizes[run, product][1]

    def forget(self, run: str) -> None:
        """Drop what is known of a run."""
        self._attempts.pop(run, None)
        for key in [key for key in self._sizes if key[0] == run]:
            del self._sizes[key]


def _attempt_files(state: State, run: str) -> Iterator[tuple[str, Mark]]:
    try:
        products = [entry.path for entry in os.scandir(state.run(run)) if entry.is_dir()]
    except OSError:
        return
    for product in products:
        try:
            for entry in os.scandir(f"{product}/attempts"):
                if entry.name.endswith(".json") and not entry.name.startswith("."):
                    info = entry.stat()
                    yield entry.path, (info.st_mtime_ns, info.st_size)
        except OSError:
            continue
