"""A cap on how many jobs do something at once in the whole site, over all invocations and hosts."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from straxflow.errors import Retryable

POLL_S = 0.5


@contextmanager
def slot(folder: Path, name: str, most: int, patience_s: float, log: Callable[[str], None]) -> Iterator[None]:
    """Hold one of `most` slots; wait until one is free. A dead holder's lock is freed by the system.

    Raises:
        Retryable: if none got free in time.
    """
    folder.mkdir(exist_ok=True)
    waited = False
    deadline = time.monotonic() + patience_s
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
        if time.monotonic() > deadline:
            raise Retryable(f"all {most} {name} slots of this site were taken for {patience_s:g} s; tried again later")
        time.sleep(POLL_S)
