"""Child processes that never ask, never outlive their parent, and end by a deadline."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(sign: signal.Signals = signal.SIGTERM) -> Callable[[], None]:
    """What a child does before its program starts, so that it gets this signal when the calling thread ends.

    TERM lets rsync keep what arrived of a file; its ssh and its twin end with it, by their closed pipes.
    """
    parent = os.getpid()

    def before_exec() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, sign)
        if os.getppid() != parent:
            os._exit(1)

    return before_exec


class Child:
    """A running child; `timed_out` tells whether the deadline ended it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.timed_out = False

    def kill(self, wait_s: float = 2.0) -> None:
        """End the child and its whole process group."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(wait_s)
                if sign == signal.SIGTERM:
                    time.sleep(0.05)

    def expire(self) -> None:
        """The deadline has come."""
        self.timed_out = True
        self.kill()


@contextlib.contextmanager
def running(
    argv: Sequence[str], timeout_s: float, stderr: IO[bytes] | int, stdin: IO[bytes] | int = subprocess.DEVNULL
) -> Iterator[Child]:
    """Run a command in a session of its own (no terminal to ask on), with its standard output piped.

    Leaving the block, however, leaves nothing of it running.
    """
    process = subprocess.Popen(
        list(argv),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env={**os.environ, "LC_ALL": "C"},
        start_new_session=True,
        preexec_fn=die_with_parent(),
    )
    child = Child(process)
    timer = threading.Timer(max(timeout_s, 0.01), child.expire)
    timer.daemon = True
    timer.start()
    try:
        yield child
        process.wait()
    finally:
        timer.cancel()
        if process.returncode is None:
            child.kill()
        if process.stdout:
            process.stdout.close()
