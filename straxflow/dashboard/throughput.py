"""Runs finished and bytes stored over time, told by the receipts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from straxflow.config import LIVE, Config
from straxflow.errors import StraxflowError
from straxflow.plan import final_receipts, receipts_of
from straxflow.receipts import State, Stored, Transferred, now

HOURS = 48
DAYS = 30
MOST_RUNS = 5000


@dataclass(frozen=True)
class Bar:
    """An hour or a day, from `start`: runs whose last receipt was made in it, bytes that arrived and were stored."""

    start: datetime
    runs: int
    arrived: int
    stored: int


@dataclass(frozen=True)
class Throughput:
    """The last hours and days, oldest first; the last bar is still growing."""

    hours: Sequence[Bar] = ()
    days: Sequence[Bar] = ()


@dataclass(frozen=True)
class _Event:
    time: datetime
    runs: int = 0
    arrived: int = 0
    stored: int = 0


class Ledger:
    """Remembers what was finished when; only runs that changed lately are looked at, and finished ones once."""

    def __init__(self, config: Config, state: State) -> None:
        self._config = config
        self._state = state
        self._known: dict[str, tuple[int, bool, list[_Event]]] = {}

    def read(self) -> Throughput:
        """The bars as of now."""
        moment = now()
        self._update(moment - timedelta(days=DAYS))
        events = [event for _, _, events in self._known.values() for event in events]
        hour = moment.replace(minute=0, second=0, microsecond=0)
        return Throughput(
            hours=_bars(events, hour, timedelta(hours=1), HOURS),
            days=_bars(events, hour.replace(hour=0), timedelta(days=1), DAYS),
        )

    def _update(self, since: datetime) -> None:
        recent = []
        if not self._state.runs.is_dir():
            return  # no run yet; whether the folder is the right one is told elsewhere
        with os.scandir(self._state.runs) as entries:
            for entry in entries:
                # every claim and release is written into the folder itself
                changed = entry.stat(follow_symlinks=False).st_mtime_ns
                if changed >= since.timestamp() * 1e9:
                    recent.append((changed, entry.name))
        known = {}
        for changed, run in sorted(recent, reverse=True)[:MOST_RUNS]:
            there = self._known.get(run)
            if there and there[0] == changed and there[1]:
                known[run] = there
                continue
            try:
                finished, events = self._look(run)
            except (StraxflowError, OSError):
                finished, events = False, []
            known[run] = changed, finished, events
        self._known = known

    def _look(self, run: str) -> tuple[bool, list[_Event]]:
        mode = self._state.facts(run).mode
        return self._finished(run, mode), list(self._events(run, mode))

    def _finished(self, run: str, mode: str) -> bool:
        return all((self._state.folder / r).is_file() for r in receipts_of(self._config, run, mode))

    def _events(self, run: str, mode: str) -> Iterator[_Event]:
        received = self._state.find(run, LIVE, Transferred)
        if received:
            yield _Event(received.made, arrived=received.bytes)
        for product in self._config.products_for(mode):
            stored = self._state.find(run, product, Stored)
            if stored:
                yield _Event(stored.made, stored=stored.bytes)
        if self._finished(run, mode):
            last = [(self._state.folder / r).stat().st_mtime for r in final_receipts(self._config, run, mode)]
            if last:
                yield _Event(datetime.fromtimestamp(max(last), now().tzinfo), runs=1)


def _bars(events: Iterable[_Event], last: datetime, length: timedelta, count: int) -> list[Bar]:
    first = last - (count - 1) * length
    sums = [[0, 0, 0] for _ in range(count)]
    for event in events:
        place = (event.time - first) // length
        if 0 <= place < count:
            for i, value in enumerate((event.runs, event.arrived, event.stored)):
                sums[place][i] += value
    return [Bar(first + i * length, *sums[i]) for i in range(count)]
