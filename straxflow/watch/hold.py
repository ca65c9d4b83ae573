"""Pauses between invocations that came to nothing, so that none is started in a loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

FIRST_S, LONGEST_S = 15.0, 600.0


@dataclass
class Hold:
    """Doubling pauses: for one run that nobody could claim though it is due, or for all, where none could even ask."""

    clock: Callable[[], float] = time.monotonic
    _until: float = 0
    _pause_s: float = 0
    _run: str | None = None

    def keeps(self, run: str | None) -> bool:
        """Whether no invocation may be started for this run now."""
        return self.clock() < self._until and self._run in (None, run)

    def begin(self, run: str | None = None) -> float:
        """Pause, for one run or (None) for all; how long, in seconds."""
        self._pause_s = min(max(2 * self._pause_s, FIRST_S), LONGEST_S)
        self._until, self._run = self.clock() + self._pause_s, run
        return self._pause_s

    def end(self) -> None:
        """An invocation has claimed something: all is well."""
        self._until = self._pause_s = 0
        self._run = None
