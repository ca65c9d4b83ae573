"""Ctrl-C and SIGTERM to the main process: remembered, and handed on to what handled them before."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any]


class Interrupts:
    """Remembers from `watch` on whether this process was asked to end."""

    def __init__(self) -> None:
        self.seen = False
        self._orders: SimpleQueue[Callable[[], Any]] = SimpleQueue()

    def watch(self) -> None:
        """Begin; in the main thread."""
        threading.Thread(target=self._pass_on, name="straxflow-interrupts", daemon=True).start()
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.getsignal(number)
            if callable(before):
                signal.signal(number, partial(self._note, before))

    def _note(self, before: Handler, number: int, frame: FrameType | None) -> None:
        self.seen = True
        if number == signal.SIGINT:
            # it raises KeyboardInterrupt, where the main thread is
            before(number, frame)
        else:
            # snakemake's handler takes a lock that this very thread may hold: it would wait for itself for ever
            self._orders.put(partial(before, number, None))

    def _pass_on(self) -> None:
        while True:
            self._orders.get()()
