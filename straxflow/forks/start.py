"""Start a server: `Started` in the process that does, `main` in the one that becomes it.

Standard library only, as all that a server itself needs: one also serves the Python that has strax.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from straxflow.forks.preload import THREADS, load, settle, single_threaded
from straxflow.forks.server import ENDS, Server

ROOT = Path(__file__).resolve().parents[2]


class Started:
    """A server that this process started, and that ends with it; `environment` is all that it has of one.

    `preload` is loaded before the first job, `later` while no job asks; the function `foresee` gets the first job's
    order, and what it loads is there for all jobs.

    Raises:
        OSError: if there is no such Python, or no room for a socket or a log.
    """

    def __init__(
        self,
        python: str,
        work: str,
        preload: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        heirs: bool = False,
        later: Sequence[str] = (),
        foresee: str = "",
    ) -> None:
        # the addresses of sockets, ssh's too, are 107 characters at most
        where = tempfile.gettempdir()
        self.folder = Path(tempfile.mkdtemp(prefix="straxflow-", dir=where if len(where) <= 45 else "/tmp"))
        self.address = str(self.folder / "server")
        # never written to: it breaks when this process ends, however it ends
        lifeline, self._life = os.pipe()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from straxflow.forks.start import main; main()"
        numbers = [str(listener.fileno()), str(lifeline), str(log)]
        words = ["heirs" if heirs else "-", work, foresee, *preload, "--", *later]
        try:
            listener.bind(self.address)
            listener.listen(512)
            with log.open("ab") as output:
                self.process = subprocess.Popen(
                    [python, "-c", code, *numbers, *words],
                    stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                    env=environment, pass_fds=(listener.fileno(), lifeline),
                )  # fmt: skip
        except OSError:
            os.close(self._life)
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        finally:
            # whoever comes when the server is not there any more must be refused, not kept waiting
            listener.close()
            os.close(lifeline)

    def dismiss(self) -> None:
        """Let it end after its last job."""
        os.close(self._life)

    def wait(self) -> None:
        """Wait for its end, but not for ever."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)


def main() -> None:
    """What `Started` starts: LISTENER LIFELINE LOG heirs|- WORK FORESEE PRELOAD... -- LATER..."""
    listener, lifeline, log, heirs, work, foresee, *names = sys.argv[1:]
    end = names.index("--")
    preload, later = names[:end], names[end + 1 :]
    door = socket.socket(fileno=int(listener))
    address = Path(door.getsockname())
    me = os.getpid()
    # imports make much and free little: to look for garbage takes a fifth of their time
    gc.disable()
    # who asks meanwhile has not heard of it; his job will
    asked: list[int] = []
    for number in ENDS:
        signal.signal(number, lambda number, _: asked.append(number))
    try:
        for name in preload:
            load(name)
        if not single_threaded():
            sys.exit(THREADS)
        if not later:
            settle()
        ahead = load(foresee + ":") if foresee else None
        Server(door, int(lifeline), load(work + ":"), heirs == "heirs", later, ahead, asked).run()
        with contextlib.suppress(OSError):
            if Path(log).stat().st_size == 0:
                Path(log).unlink()
    finally:
        if os.getpid() == me:
            shutil.rmtree(address.parent, ignore_errors=True)
