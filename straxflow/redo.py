"""Do steps of a run again: their receipts are set aside, kept in its history, so that snakemake makes them anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from straxflow.config import LIVE, STEPS, Config
from straxflow.errors import UsageError
from straxflow.fsio import fsync_path, write_atomic
from straxflow.plan import RECEIPTS
from straxflow.receipts import Processed, Registered, State, Transferred, now

HISTORY = "history"
ORDER = "redo.json"
"""Beside a product's receipts while it is to be made from its source again, whatever is stored of it."""


def receipts_from(
    config: Config, state: State, run: str, mode: str, step: str, product: str | None = None
) -> list[Path]:
    """The receipts that there are of this step and of all after it, the last ones first.

    With `product` only its own; from `process` on also those of what is made from it.

    Raises:
        UsageError: if the run or the site does not have this step.
    """
    if step not in config.steps:
        raise UsageError(f"--from {step}: this site does the steps {', '.join(config.steps)}")
    made = config.products_for(mode)
    if product is not None:
        if product not in made:
            raise UsageError(f"run {run}: no {product} is made of it (mode {mode})")
        if step in ("transfer", "release"):
            raise UsageError(f"--product: {step} concerns the whole run")
        made = _with_consumers(config, product, mode) if step == "process" else [product]
    found = [state.released(run)]
    later = [name for name in RECEIPTS if STEPS.index(name) >= STEPS.index(step)]
    for name in reversed(made):
        found += [state.path(run, name, RECEIPTS[one]) for one in reversed(later)]
    if step == "transfer":
        found += [state.path(run, LIVE, Registered), state.path(run, LIVE, Transferred)]
    return [path for path in found if path.is_file()]


def _with_consumers(config: Config, product: str, mode: str) -> list[str]:
    found = [product]
    for name in config.products_for(mode):  # sources come first
        if config.products[name].source in found:
            found.append(name)
    return found


def check_possible(config: Config, state: State, run: str, step: str, receipts: list[Path]) -> None:
    """Make sure that what the step works on is still here.

    Raises:
        UsageError: if staging copies that it would read were dropped.
    """
    if step not in ("checksum", "move_out"):
        return
    for product in {path.parent.name for path in receipts} & set(config.products):
        made = state.find(run, product, Processed)
        gone = (
            [t.folder for t in made.targets.values() if not (config.folders.staging / t.folder).is_dir()]
            if made
            else []
        )
        if gone:
            raise UsageError(
                f"run {run}: {product} cannot be done again from {step}: its staging copy ({', '.join(gone)}) was "
                "dropped after it was stored; use --from process"
            )


def set_aside(state: State, run: str, step: str, receipts: list[Path], order: dict[str, Any]) -> Path:
    """Move receipts of a run, which must be held, to a new folder of its history; products whose making is among
    them are made from their source again, even if they are stored."""
    folder = state.run(run) / HISTORY / f"{now():%Y%m%dT%H%M%S%f}-{step}"
    folder.mkdir(parents=True)
    write_atomic(folder / ORDER, json.dumps({**order, "from": step, "time": now().isoformat()}, indent=1).encode())
    for path in receipts:
        if path.name == Processed.name:
            write_atomic(path.with_name(ORDER), json.dumps({**order, "time": now().isoformat()}, indent=1).encode())
        kept = folder / path.relative_to(state.run(run))
        kept.parent.mkdir(exist_ok=True)
        path.rename(kept)
        fsync_path(path.parent)
    return folder


def ordered(state: State, run: str, product: str) -> bool:
    """Whether a product must be made from its source again."""
    return (state.run(run) / product / ORDER).is_file()


def fulfil(state: State, run: str, product: str) -> None:
    """The product was made again."""
    (state.run(run) / product / ORDER).unlink(missing_ok=True)
