"""Background processes of the lab: started once, found again by a pid file, ended for certain."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from straxflow.errors import StraxflowError
from straxflow.owner import process_fields, process_start


class LabError(StraxflowError):
    """A part of the lab could not be started; the message quotes the end of its log."""


def find_program(name: str, package: str) -> str:
    """Absolute path of a program, in the sbin folders too; `package` is Debian's, for the message."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin")
    if path is None:
        raise LabError(f"{name} is not installed here; `apt-get install {package}` brings it")
    return path


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on, outside the range that outgoing connections draw from."""
    found: list[int] = []
    for port in random.SystemRandom().sample(range(20000, 32000), 500):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise LabError(f"no {count} free ports between 20000 and 32000 on 127.0.0.1")


def tail(log: Path, lines: int = 8) -> str:
    """The end of a log, for an error message."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""


def wait_for(what: str, ready: Callable[[], bool], seconds: float, log: Path) -> None:
    """Wait until `ready()` is true; LabError with the log's end after `seconds`."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise LabError(f"{what} did not come up within {seconds:.0f} s; the end of {log}:\n{tail(log)}")
        time.sleep(0.03)


class Process:
    """One background process with the pid file `<folder>/<name>.pid` and the log `<folder>/<name>.log`.

    The pid file carries the process's start time too, so a pid that the system has given to another
    process since is never signalled. Any later program can stop what an earlier one started.
    """

    def __init__(self, folder: Path, name: str):
        self.name = name
        self.pidfile = folder / f"{name}.pid"
        self.log = folder / f"{name}.log"
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, command: Sequence[str], *, die_with_parent: bool, env: Mapping[str, str] | None = None) -> None:
        """Start `command` in a session of its own, its output appended to the log.

        die_with_parent: the kernel ends it (SIGTERM) when the thread that started it ends, even by kill -9.
        """
        guard = [find_program("setpriv", "util-linux"), "--pdeathsig", "TERM"] if die_with_parent else []
        self.pidfile.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                [*guard, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=env,
            )
        pid = self._child.pid
        self.pidfile.write_text(f"{pid} {process_start(pid)}\n")

    @property
    def pid(self) -> int | None:
        """The process's id, None when it does not run."""
        if self._child is not None:
            self._child.poll()  # collects it, so that a dead child is not seen as alive
        try:
            pid, started = self.pidfile.read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        start = process_start(int(pid))
        return int(pid) if start is not None and str(start) == started else None

    def stop(self, seconds: float = 15) -> None:
        """SIGTERM, then SIGKILL after `seconds`; nothing if it does not run."""
        if (pid := self.pid) is not None:
            _signal(pid, signal.SIGTERM)
            deadline = time.monotonic() + seconds
            while self.pid is not None and time.monotonic() < deadline:
                time.sleep(0.02)
        self.kill()

    def kill(self) -> None:
        """SIGKILL, now, to the process and all its descendants."""
        if (pid := self.pid) is not None:
            kill_tree(pid)
            while self.pid is not None:
                time.sleep(0.005)
        self.pidfile.unlink(missing_ok=True)


def processes(wanted: Callable[[str], bool]) -> list[int]:
    """The processes whose command line, its words joined by spaces, is wanted."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it may end by itself just now
            if entry.name.isdigit() and wanted((entry / "cmdline").read_text(errors="replace").replace("\0", " ")):
                found.append(int(entry.name))
    return found


def kill_tree(pid: int) -> None:
    """SIGKILL, now, to a process and all its descendants."""
    for one in [pid, *_descendants(pid)]:
        _signal(one, signal.SIGKILL)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it may end by itself just now
        os.kill(pid, number)


def _descendants(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := process_fields(int(entry.name))):
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found
