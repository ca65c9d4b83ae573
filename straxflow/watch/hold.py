"""Growing pauses after what came to nothing, so that it is not tried again in a loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

FIRST_S, LONGEST_S = 15.0, 600.0


@dataclass
class Hold:
    """Doubling pauses: for all, or for one run that nobody could claim though it is due."""

    clock: Callable[[], float] = time.monotonic
    first_s: float = FIRST_S
    longest_s: float = LONGEST_S
    _until: float = 0
    _pause_s: float = 0
    _run: str | None = None

    def keeps(self, run: str | None = None) -> bool:
        """Whether the pause is not over, for this run."""
        return self.clock() < self._until and self._run in (None, run)

    def begin(self, run: str | None = None) -> float:
        """Pause, for one run or (None) for all; how long, in seconds."""
        self._pause_s = min(max(2 * self._pause_s, self.first_s), self.longest_s)
        self._until, self._run = self.clock() + self._pause_s, run
        return self._pause_s

    def end(self) -> None:
        """All is well."""
        self._until = self._pause_s = 0
        self._run = None
