"""Who owns a claim, a scratch folder or an attempt: a process that can be told apart from all others."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import time
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self


@cache
def boot_id() -> str:
    """The kernel's id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def process_fields(pid: int) -> list[str]:
    """What `/proc/PID/stat` tells of a process, from its state on; nothing if there is none."""
    try:
        told = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return []
    # the command name stands in parentheses and may hold anything, no text even, so count from the last one
    return told.rpartition(b")")[2].decode("ascii").split()


def process_start(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None if there is none, or only its zombie."""
    fields = process_fields(pid)
    return int(fields[19]) if fields and fields[0] not in ("Z", "X") else None


@cache
def this_host() -> str:
    """The host's name, with what tells machines and containers of one name apart."""
    try:
        machine = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except OSError:
        machine = ""
    space = Path("/proc/self/ns/pid").readlink()
    mark = hashlib.sha256(f"{machine} {space}".encode()).hexdigest()[:6]
    return f"{socket.gethostname().replace('~', '_')}+{mark}"


def process_is_gone(pid: int) -> bool:
    """Whether there is provably no such process; one that hides from us is not gone."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return process_start(pid) is None and Path(f"/proc/{pid}").exists()


def signal_and_wait(pids: Iterable[int], number: signal.Signals, wait_s: float) -> list[int]:
    """Send a signal to processes, which need not be this one's children; those that are not gone after so long."""
    left = [*pids]
    for pid in left:
        with contextlib.suppress(OSError):
            os.kill(pid, number)
    deadline = time.monotonic() + wait_s
    while (left := [pid for pid in left if not process_is_gone(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


@dataclass(frozen=True)
class Owner:
    """A process on a host in a boot. Its start tells it from a later one with the same pid."""

    host: str
    boot: str
    pid: int
    start: int

    @classmethod
    def current(cls) -> Owner:
        """This process."""
        return _this_process()

    @classmethod
    def of(cls, pid: int) -> Self:
        """A process of this host."""
        return cls(this_host(), boot_id(), pid, process_start(pid) or 0)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """From what `as_dict` gave.

        Raises:
            KeyError, TypeError, ValueError: if the fields are not those of an owner.
        """
        return cls(str(fields["host"]), str(fields["boot"]), int(fields["pid"]), int(fields["start"]))

    def as_dict(self) -> dict[str, Any]:
        """For JSON and the run database."""
        return asdict(self)

    def is_dead(self) -> bool:
        """True only if provably dead: same host (and container), and another boot or no such process any more."""
        if self.host != this_host():
            return False
        if self.boot != boot_id() or process_is_gone(self.pid):
            return True
        start = process_start(self.pid)
        return start is not None and start != self.start

    def token(self) -> str:
        """A new unique name for scratch that also names its owner; `from_token` reads it."""
        return f"{self.host}~{self.boot.replace('-', '')}~{self.pid}~{self.start}~{uuid.uuid4().hex[:8]}"

    @classmethod
    def from_token(cls, token: str) -> Self | None:
        """The owner that a token names; None if it is no token."""
        parts = token.split("~")
        if len(parts) != 5 or len(parts[1]) != 32 or not (parts[2].isdigit() and parts[3].isdigit()):
            return None
        return cls(parts[0], str(uuid.UUID(parts[1])), int(parts[2]), int(parts[3]))


@cache
def _this_process() -> Owner:
    return Owner.of(os.getpid())


# a child is another one
os.register_at_fork(after_in_child=_this_process.cache_clear)
