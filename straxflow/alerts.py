"""Tell of failed runs by the on_failure hook: soon, but not again and again, and of many at once in one call."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from pydantic import AwareDatetime, BaseModel, ValidationError

from straxflow.config import Config
from straxflow.fsio import write_atomic
from straxflow.hooks import Facts, run_hook
from straxflow.plan import Standing
from straxflow.receipts import State, now
from straxflow.rundb.claims import Released
from straxflow.rundb.rundoc import Run

log = logging.getLogger(__name__)

LEFT = "left to a person"
"""The state of a run that is not tried again by itself."""
MOST = 1000
"""Runs that are remembered to be told of."""


class Memory(BaseModel):
    """alerts.json in the state folder: what was told when, and what is still to be told; all invocations share it."""

    calls: list[AwareDatetime] = []
    told: dict[str, AwareDatetime] = {}
    waiting: list[Facts] = []


def tell(config: Config, state: State, failed: Sequence[Facts]) -> None:
    """Tell of runs that were given back as failed, and of earlier ones that had to wait; at most so many calls an hour.

    Further failures of a run are not told for `hooks.repeat_h`, but for the first one after all was forgiven, and the
    last one.
    """
    file = state.folder / "alerts.json"
    if config.hooks.on_failure is None or not (failed or file.exists()):
        return
    try:
        with _memory(state) as memory:
            _add(config, memory, failed)
            calls = _take(config, memory)
    except OSError as error:
        log.warning("nobody is told of %d failed runs: %s: %s", len(failed), error.filename, error.strerror)
        return
    for several in calls:
        summary = several[0] if len(several) == 1 else _summary(several)
        run_hook(config, "on_failure", summary, several if len(several) > 1 else ())


def facts_of(run: Run, stands: Standing, released: Released, batch: str) -> Facts:
    """What is to be told of a run that was given back as failed."""
    first = next(iter(stands.failures.values()), None)
    return Facts(
        state=LEFT if released.settled else "failed",
        reason=released.reason or "",
        run=run.id,
        number=run.facts.number,
        mode=run.facts.mode,
        step=first.step if first else "",
        product=first.product if first else "",
        log=stands.log or "",
        batch=batch,
        count=released.count,
    )


@contextmanager
def _memory(state: State) -> Iterator[Memory]:
    """The memory, which nobody else changes meanwhile; written at the end if it has changed."""
    file = state.folder / "alerts.json"
    with (state.folder / ".alerts.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            text = file.read_text(encoding="utf-8")
            memory = Memory.model_validate_json(text)
        except (FileNotFoundError, ValidationError):
            text, memory = "", Memory()
        yield memory
        if (changed := memory.model_dump_json(indent=1)) != text:
            write_atomic(file, changed.encode())


def _add(config: Config, memory: Memory, failed: Sequence[Facts]) -> None:
    moment = now()
    quiet = timedelta(hours=config.hooks.repeat_h)
    # what was told in the future was so by a clock that was wrong
    memory.told = {run: time for run, time in memory.told.items() if abs(moment - time) < quiet}
    for one in failed:
        if one.state == LEFT or one.count <= 1 or one.run not in memory.told:
            memory.told[one.run] = moment
            memory.waiting = [*(w for w in memory.waiting if w.run != one.run), one][-MOST:]


def _take(config: Config, memory: Memory) -> list[list[Facts]]:
    """What may be told now, call by call."""
    hooks, waiting = config.hooks, memory.waiting
    memory.calls = [time for time in memory.calls if abs(now() - time) < timedelta(hours=1)]
    left = hooks.per_hour - len(memory.calls)
    if not waiting or left < 1:
        return []
    calls = [[one] for one in waiting] if len(waiting) <= min(hooks.at_once, left) else [waiting]
    memory.calls += [now() for _ in calls]
    memory.waiting = []
    return calls


def _summary(several: Sequence[Facts]) -> Facts:
    """Many failed runs in few words."""
    kinds: dict[str, list[Facts]] = {}
    for one in several:
        kinds.setdefault(f"{one.step} of {one.product}" if one.step else "other reasons", []).append(one)
    told = "; ".join(
        f"{len(ones)} x {kind}, e.g. run {ones[-1].run}: {ones[-1].reason}"
        for kind, ones in sorted(kinds.items(), key=lambda item: -len(item[1]))
    )
    left = sum(one.state == LEFT for one in several)
    runs = [one.run for one in several]
    return Facts(
        state=LEFT if left == len(several) else "failed",
        reason=f"{len(several)} runs failed{f' ({left} of them are {LEFT})' if left else ''}: {told}",
        run=" ".join(runs[:20]) + (f" and {len(runs) - 20} more" if len(runs) > 20 else ""),
        log=several[-1].log,
        batch=several[-1].batch,
        count=len(several),
    )
