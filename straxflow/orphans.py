"""Processes on this host that a dead invocation left: told apart from all others by the batch in their environment."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from pathlib import Path

from straxflow.batch import BATCH, OWNER
from straxflow.owner import Owner, signal_and_wait
from straxflow.slurm import cancel_jobs

log = logging.getLogger(__name__)


def processes_of(batch: str, owner: Owner | None = None) -> list[int]:
    """Processes on this host that were started for an invocation, by this main process; never this one itself."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            environment = _environment(entry)
            # a batch alone may stand in the shell of somebody who asks for its report
            if environment.get(BATCH) == batch and (owner is None or environment.get(OWNER) == owner):
                found.append(int(entry.name))
    return found


def _environment(process: Path) -> dict[str, str | Owner | None]:
    """Batch and owner in the environment that a process was started with; nothing of other users' processes."""
    found: dict[str, str | Owner | None] = {}
    with contextlib.suppress(OSError):
        for word in (process / "environ").read_bytes().split(b"\0"):
            name, _, value = word.decode(errors="replace").partition("=")
            if name == BATCH:
                found[name] = value
            elif name == OWNER:
                found[name] = Owner.from_token(value)
    return found


def stop_leftovers(batch: str, *owners: Owner) -> bool:
    """Stop batch and local jobs of an invocation that is dead; False if Slurm has to be asked again later."""
    # on a node that is this host, a batch job whose processes were stopped first would count as failed
    answered = cancel_jobs(batch)
    for owner in owners:
        stop_processes(batch, owner)
    return answered


def stop_processes(batch: str, owner: Owner, grace_s: float = 5) -> int:
    """End all processes of an invocation whose main process is dead; how many there were.

    They are asked first: a step then notes that it was stopped, and rsync keeps what arrived.
    """
    if not owner.is_dead():
        return 0
    stopped = set[int]()
    for number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 2.0)):
        left = processes_of(batch, owner)
        stopped |= set(left)
        if not signal_and_wait(left, number, patience_s):
            break
    if stopped:
        log.warning("stopped %d processes that invocation %s left", len(stopped), batch)
    return len(stopped)
