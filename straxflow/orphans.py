"""Processes on this host that a dead invocation left: told apart from all others by the batch in their environment."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from pathlib import Path

from straxflow.batch import BATCH
from straxflow.owner import process_is_gone

log = logging.getLogger(__name__)


def processes_of(batch: str) -> list[int]:
    """Processes, of this user on this host, that were started for an invocation; never this one itself."""
    mark = f"{BATCH}={batch}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def stop_processes(batch: str, grace_s: float = 5) -> int:
    """End all processes of an invocation whose main process is dead; how many there were.

    They are asked first: a step then notes that it was stopped, and rsync keeps what arrived.
    """
    stopped = set[int]()
    for number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 2.0)):
        left = processes_of(batch)
        stopped |= set(left)
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, number)
        deadline = time.monotonic() + patience_s
        while (left := [pid for pid in left if not process_is_gone(pid)]) and time.monotonic() < deadline:
            time.sleep(0.05)
        if not left:
            break
    if stopped:
        log.warning("stopped %d processes that invocation %s left", len(stopped), batch)
    return len(stopped)
