"""A cap on how many jobs do something at once in the whole site, over all invocations and hosts."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_S = 0.5


@contextmanager
def slot(folder: Path, name: str, most: int, log: Callable[[str], None]) -> Iterator[None]:
    """Hold one of `most` slots; wait until one is free. A dead holder's lock is freed by the system."""
    folder.mkdir(exist_ok=True)
    waited = False
    while True:
        for number in range(most):
            with (folder / f"{name}.{number}").open("w") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                yield
                return
        if not waited:
            log(f"all {most} {name} slots of this site are taken; waiting for one")
            waited = True
        time.sleep(POLL_S)
