"""What a watcher says: to its terminal or the journal, and to a rotating file; the same trouble once."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Collection, Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path

log = logging.getLogger("straxflow.watch")

FILE = "logs/watch.log"
BYTES, FILES = 5_000_000, 5
FORMAT = "%(asctime)s %(levelname)-7s %(message)s"


def log_to_terminal() -> None:
    """Send what straxflow logs to standard output, with time."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_formatter())
    root = logging.getLogger("straxflow")
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    root.propagate = False


def log_to_file(state_folder: Path) -> logging.Handler:
    """Send it also to a file in the state folder, of bounded size.

    Raises:
        OSError: if it cannot be opened.
    """
    path = state_folder / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(path, maxBytes=BYTES, backupCount=FILES, encoding="utf-8")
    handler.setFormatter(_formatter())
    logging.getLogger("straxflow").addHandler(handler)
    return handler


def _formatter() -> logging.Formatter:
    formatter = logging.Formatter(FORMAT, "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    return formatter


class Troubles:
    """Tells a trouble when it begins and when it is over, however often it is met meanwhile."""

    def __init__(self) -> None:
        self._there: dict[str, tuple[float, str]] = {}
        self._known = set[str]()

    def there(self, what: str, text: str, then: str) -> None:
        """This is not in order now, and what follows of it."""
        began, said = self._there.get(what, (time.monotonic(), ""))
        # the details in parentheses differ from time to time
        if text.partition(" (")[0] != said.partition(" (")[0]:
            log.warning("%s; %s", text, then)
        self._there[what] = (began, text)

    def over(self, what: str, text: str) -> None:
        """It is in order."""
        if what in self._there:
            log.info("%s (after %.0f s)", text, time.monotonic() - self._there.pop(what)[0])
            self._known.discard(what)

    def lasting(self, seconds: float, among: Collection[str]) -> Iterator[str]:
        """Those that have lasted for so long, each once."""
        for what, (began, text) in self._there.items():
            if what in among and what not in self._known and time.monotonic() - began > seconds:
                self._known.add(what)
                yield text
