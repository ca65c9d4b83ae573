"""Parts of the page's data, each read by a thread of its own when somebody asks and it is not fresh any more."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Generic, TypeVar

from straxflow.errors import StraxflowError
from straxflow.receipts import now

log = logging.getLogger(__name__)

REST = 5
"""What takes long is read less often: it rests for so many times as long as it took."""
HANGS_S = 20.0

T = TypeVar("T")


@dataclass(frozen=True)
class Reading(Generic[T]):
    """A part as last read. `problem`: why it could not be read again since `made`."""

    value: T
    made: datetime | None = None
    problem: str | None = None


class Part(Generic[T]):
    """Something that is read at most every `every_s` seconds, however many ask; a slow disk or database delays
    nobody, since what is there is given meanwhile."""

    def __init__(self, read: Callable[[], T], empty: T, every_s: float, patience_s: float = 3) -> None:
        self._read = read
        self._every_s = every_s
        self._patience_s = patience_s
        self._reading: Reading[T] = Reading(empty)
        self._changed = threading.Condition()
        self._asked = float("-inf")
        self._took = 0.0
        self._busy = False

    def get(self) -> Reading[T]:
        """What was read last; waits a little only for what is not fresh."""
        with self._changed:
            pause = max(self._every_s, REST * self._took)
            if not self._busy and time.monotonic() - self._asked >= pause:
                self._busy, self._asked = True, time.monotonic()
                threading.Thread(target=self._refresh, name="straxflow-page", daemon=True).start()
            if self._busy:
                first = self._reading.made is None and self._reading.problem is None
                self._changed.wait_for(lambda: not self._busy, self._patience_s if first else 0.3)
            if self._busy and (hangs := time.monotonic() - self._asked) > HANGS_S:
                return replace(self._reading, problem=f"no answer for {hangs:.0f} s: does a disk or the network hang?")
            return self._reading

    def _refresh(self) -> None:
        before = self._reading
        try:
            reading = Reading(self._read(), now())
        except (StraxflowError, OSError) as error:
            reading = Reading(before.value, before.made, str(error))
        except Exception as error:
            # one odd document or file must not end the page
            log.exception("a part of the page could not be read")
            reading = Reading(before.value, before.made, f"{type(error).__name__}: {error} (a bug: see the log)")
        with self._changed:
            self._took = time.monotonic() - self._asked
            self._reading, self._busy = reading, False
            self._changed.notify_all()


K = TypeVar("K", bound=Hashable)


class Parts(Generic[K, T]):
    """Parts by key, made when first asked for; only those asked for last are kept."""

    def __init__(self, make: Callable[[K], Part[T]], most: int) -> None:
        self._make = make
        self._most = most
        self._parts: OrderedDict[K, Part[T]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K) -> Reading[T]:
        """What was read last of one of them."""
        with self._lock:
            part = self._parts.pop(key, None) or self._make(key)
            self._parts[key] = part
            while len(self._parts) > self._most:
                self._parts.popitem(last=False)
        return part.get()
