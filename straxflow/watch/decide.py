"""What a watcher does next: a pure function of what it sees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from straxflow.config.sections.watch import Watch

Word = Literal["finish", "stop", "kill"]
"""What an invocation can be told: finish what runs and begin nothing more; cancel what runs; end this instant."""


class Stop(IntEnum):
    """What the watcher itself was asked."""

    NO = 0
    DRAIN = 1
    NOW = 2


@dataclass(frozen=True)
class Seen:
    """An invocation as the watcher sees it."""

    batch: str
    claims: bool = False
    """It has not claimed yet."""
    newest: int | None = None
    """The highest number among the runs that it claimed."""
    still_s: float = 0
    """How long nothing has moved and none of its jobs has run, s."""
    told: Word | None = None
    told_s: float = 0


@dataclass(frozen=True)
class Facts:
    """What a decision rests on."""

    running: Sequence[Seen] = ()
    due: bool | None = None
    """Whether a run waits that `room` lets in; None if that is not known."""
    holds: bool = True
    stop: Stop = Stop.NO
    once: bool = False


@dataclass(frozen=True)
class Start:
    """Start an invocation; with `newer_than`, for newer runs only, and those that go before all others."""

    newer_than: int | None = None


@dataclass(frozen=True)
class Tell:
    """Tell an invocation something."""

    batch: str
    word: Word
    reason: str


@dataclass(frozen=True)
class End:
    """End the watcher: nothing is left to do."""


Action = Start | Tell | End


def decide(facts: Facts, limits: Watch) -> list[Action]:
    """What to do now."""
    actions: list[Action] = list(_tell(facts, limits))
    if facts.stop:
        return actions if facts.running else [End()]
    start = room(facts.running, limits)
    if start and facts.holds and facts.due:
        actions.append(start)
    elif facts.once and facts.due is False and not facts.running:
        actions.append(End())
    return actions


def room(running: Sequence[Seen], limits: Watch) -> Start | None:
    """For which runs there is room for one more invocation; None: for none, or not yet."""
    if len(running) >= limits.max_invocations or any(one.claims for one in running):
        return None
    newest = max((one.newest for one in running if one.newest is not None), default=None)
    last = limits.max_invocations > 1 and len(running) == limits.max_invocations - 1
    return Start(newest if last else None)


def _tell(facts: Facts, limits: Watch) -> Iterator[Tell]:
    for one in facts.running:
        if one.told == "kill":
            continue
        if one.told == "stop":
            if one.told_s > limits.grace_s:
                yield Tell(one.batch, "kill", f"it did not stop within {limits.grace_s:g} s")
        elif facts.stop == Stop.NOW:
            yield Tell(one.batch, "stop", "asked to stop at once")
        elif one.still_s > limits.stall_s:
            yield Tell(one.batch, "stop", f"it hangs: nothing moved and no job ran for {one.still_s:.0f} s")
        elif facts.stop == Stop.DRAIN and one.told is None:
            yield Tell(one.batch, "finish", "asked to end")
