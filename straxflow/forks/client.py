"""The client of a fork server: a job of it, with what one uses of a `subprocess.Popen`."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from straxflow.owner import signal_and_wait

GRACE_S = 30.0
"""How long a job that was asked to end may take, seconds."""
PATIENCE_S = 300.0
"""How long a server may take to begin a job, seconds: it may still do its imports, from a slow disk."""
STREAMS = (0, 1, 2)


class ServedJob:
    """A job that a server does, in `folder`, with these standard streams (by default those of this process).

    Raises:
        OSError, EOFError: if there is no server, or it begins no job.
    """

    def __init__(
        self,
        server: str,
        words: Sequence[str],
        environment: Mapping[str, str],
        folder: Path | None = None,
        streams: Sequence[int] = STREAMS,
    ) -> None:
        self.returncode: int | None = None
        self.lost = False
        """Whether nobody can tell how it ended, as its server is gone: its code is 1 then."""
        self._talk = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._talk.settimeout(PATIENCE_S)
            self._talk.connect(server)
            text = pack(folder or Path.cwd(), words, environment)
            socket.send_fds(self._talk, [len(text).to_bytes(4, "big")], [*streams])
            self._talk.sendall(text)
            self.pid = int.from_bytes(receive(self._talk, 4), "big")
            self._talk.settimeout(None)
        except BaseException:
            self._talk.close()
            raise

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; its exit code, negative for a signal.

        Raises:
            subprocess.TimeoutExpired: if it still runs after so many seconds.
        """
        if self.returncode is None:
            heard = select.poll()
            heard.register(self._talk, select.POLLIN)
            if not heard.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            told = b""
            with contextlib.suppress(OSError):
                # not taken away, as an exception of a signal may come before it is noted down
                told = self._talk.recv(8, socket.MSG_PEEK)
            if len(told) == 8:
                self.returncode = int.from_bytes(told[4:], "big", signed=True)
            else:
                # the server is gone, its job perhaps not: nobody may think that it has ended while it runs
                left = signal_and_wait([self.pid], signal.SIGTERM, GRACE_S)
                signal_and_wait(left, signal.SIGKILL, GRACE_S)
                self.lost, self.returncode = True, 1
            self._talk.close()
        return self.returncode

    def poll(self) -> int | None:
        """Its exit code, if it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def terminate(self) -> None:
        """Ask it to end."""
        send(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        send(self.pid, signal.SIGKILL)


def pack(folder: Path, words: Sequence[str], environment: Mapping[str, str]) -> bytes:
    """What a job is to do, and where: words, working folder, environment."""
    variables = (f"{name}={value}" for name, value in environment.items())
    return b"\0".join(os.fsencode(text) for text in (str(folder), str(len(words)), *words, *variables))


def unpack(text: bytes) -> tuple[str, list[str], dict[str, str]]:
    """Working folder, words and environment, from what `pack` made."""
    folder, count, *rest = map(os.fsdecode, text.split(b"\0"))
    pairs = (field.partition("=") for field in rest[int(count) :])
    # os.environ takes no empty name, which others do
    return folder, rest[: int(count)], {key: value for key, _, value in pairs if key}


def receive(talk: socket.socket, size: int) -> bytes:
    """So many bytes, all of them.

    Raises:
        EOFError: if the other side closed before.
    """
    received = b""
    while len(received) < size:
        part = talk.recv(size - len(received))
        if not part:
            raise EOFError
        received += part
    return received


def send(pid: int, number: int) -> None:
    """Send a signal to a process, if there still is one."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
