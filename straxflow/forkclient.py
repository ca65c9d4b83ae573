"""The client of a fork server: one for each job, so it imports next to nothing.

The C halves of `os`, `signal` and `socket` do all that is needed; the modules around them, with `enum` and `selectors`,
take twice as long to import as Python takes to start.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]
import _socket as socket
import posix as os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

GRACE_S = 30.0
"""How long a job that was asked to end may take, seconds."""
PATIENCE_S = 300.0
"""How long a server may take to begin a job, seconds: it may still do its imports, from a slow disk."""
STREAMS = (0, 1, 2)
_CODE = ("utf-8", "surrogateescape")


def ask(server: str, words: list[str]) -> int | None:
    """Let a server do the work that `words` name; its exit code, or None if there is no server.

    If the job was killed, this process ends by the same signal.
    """
    signals = (signal.SIGINT, signal.SIGTERM)
    talk = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # one that comes before it can be passed on must wait
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        try:
            talk.settimeout(PATIENCE_S)
            talk.connect(server)
            text = pack(words)
            streams = b"".join(number.to_bytes(4, sys.byteorder) for number in STREAMS)
            talk.sendmsg([len(text).to_bytes(4, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
            talk.sendall(text)
            pid = int.from_bytes(receive(talk, 4), "big")
            talk.settimeout(None)
            for number in signals:
                signal.signal(number, lambda number, _: send(pid, number))
        except (OSError, EOFError):
            return None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        try:
            status = int.from_bytes(receive(talk, 4), "big")
        except (OSError, EOFError):
            # the server is gone, its job perhaps not: nobody may think that it has ended while it runs
            end(pid)
            return 1
    finally:
        talk.close()
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def setting(name: str) -> str | None:
    """A variable of the environment."""
    value = os.environ.get(name.encode())
    return value.decode(*_CODE) if value else None


def leave(code: int) -> NoReturn:
    """End this process, which has written nothing, without taking it apart."""
    os._exit(code)


def pack(words: list[str]) -> bytes:
    """What a job is to do, and where: words, working folder, environment."""
    texts = (text.encode(*_CODE) for text in (str(len(words)), *words))
    return b"\0".join([os.getcwdb(), *texts, *(b"%b=%b" % item for item in os.environ.items())])


def unpack(text: bytes) -> tuple[str, list[str], dict[str, str]]:
    """Working folder, words and environment, from what `pack` made."""
    folder, count, *rest = (field.decode(*_CODE) for field in text.split(b"\0"))
    pairs = (field.partition("=") for field in rest[int(count) :])
    return folder, rest[: int(count)], {key: value for key, _, value in pairs}


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
    try:  # noqa: SIM105  (contextlib would have to be imported)
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def end(pid: int) -> None:
    """End a process that is not this one's child, and wait until it has."""
    import select

    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return
    gone = select.poll()
    gone.register(handle, select.POLLIN)
    for number in (signal.SIGTERM, signal.SIGKILL):
        send(pid, number)
        if gone.poll(GRACE_S * 1000):
            return
