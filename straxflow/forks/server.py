"""Jobs as forks of a process that has done its imports: a start costs milliseconds instead of a second.

A server lives as long as the invocation that started it. Each job is a fork of it, with the folder, the environment and
the standard streams of the client that asked, which is told how it ended. Clients are threads of the main process
(popen.py), and steps that let strax work; where there is no server, they start what they need.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import selectors
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from straxflow.forks.client import GRACE_S, STREAMS, receive, send, unpack
from straxflow.forks.preload import THREADS, load, settle, single_threaded

Work = Callable[[list[str]], int]
HANGUP = () if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else (signal.SIGHUP,)
"""The terminal is closed; nobody hears that under nohup."""
ENDS = (signal.SIGINT, signal.SIGTERM, *HANGUP)
RECENT_S = 2.0
"""So long a job that is asked for may still be one of those that a signal was for, seconds."""
Order = tuple[str, list[str], dict[str, str]]
"""Working folder, words, environment."""


@dataclass
class _Job:
    talk: socket.socket
    of_main: bool
    """Whether the main process itself waits for it."""
    told: bool = False
    """Whether its client has been told how it ended; it keeps its number until that has closed."""
    lost: bool = False
    """Whether nobody waits for it any more."""


class Server:
    """Answers clients until its lifeline, a pipe that the invocation's main process holds, is cut."""

    def __init__(
        self,
        listener: socket.socket,
        lifeline: int,
        work: Work,
        heirs: bool,
        later: Sequence[str] = (),
        foresee: Callable[[Order], object] | None = None,
        asked: list[int] | None = None,
    ) -> None:
        self.listener = listener
        self.lifeline = lifeline
        self.work = work
        self.heirs = heirs
        self.later = [*later]
        self.foresee = foresee
        self.asked = [] if asked is None else asked
        """Signals that came of late."""
        self.asked_s = 0.0
        self.main = os.getppid()
        self.jobs: dict[int, _Job] = {}
        self.doomed: dict[int, float] = {}
        self.successors: set[int] = set()
        self.wait = selectors.DefaultSelector()

    def run(self) -> None:
        """Serve; returns when the lifeline is cut and the last job has ended."""
        self.listener.setblocking(False)
        wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # Ctrl-C at the terminal reaches the whole group, and the end of a batch job all that it runs: it is for the
        # jobs, of which this process is to tell how they ended
        for number in ENDS:
            signal.signal(number, self._pass_on)
        self.throne, self.crown = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.throne.setblocking(False)
        self._listen()
        for source in (self.lifeline, wake, self.throne):
            self.wait.register(source, selectors.EVENT_READ)
        while self.lifeline >= 0 or self.jobs or self.successors:
            found = self.wait.select(0 if self.later else 1.0 if self.doomed or self.asked else None)
            for key, _ in found:
                if key.fileobj is self.listener:
                    self._accept()
                elif key.fileobj is self.throne:
                    self._crown()
                elif key.fileobj == wake:
                    os.read(wake, 4096)
                    self._reap()
                elif key.fileobj == self.lifeline:
                    self._close()
                else:
                    self._lost(int(key.data))
            if self.asked and not any(key.fileobj is self.listener for key, _ in found):
                self._forget()
            if self.later:
                self._learn()
            for pid in [pid for pid, end in self.doomed.items() if end < time.monotonic()]:
                del self.doomed[pid]
                send(pid, signal.SIGKILL)

    def _learn(self) -> None:
        """Load something more; a job that comes meanwhile waits for it, one that came before loads it itself."""
        try:
            load(self.later.pop(0))
        except Exception:
            traceback.print_exc()
        if not single_threaded():
            print(THREADS, file=sys.stderr, flush=True)
            self._close()
        if not self.later:
            settle()

    def _close(self) -> None:
        """Take no more jobs."""
        self._listen(False)
        # whoever comes now must be refused, not kept waiting
        self.listener.close()
        self.wait.unregister(self.lifeline)
        self.lifeline = -1
        self.later = []

    def _listen(self, yes: bool = True) -> None:
        listens = self.listener.fileno() >= 0 and self.listener in self.wait.get_map()
        if yes and not listens:
            self.wait.register(self.listener, selectors.EVENT_READ)
        elif listens and not yes:
            self.wait.unregister(self.listener)

    def _accept(self) -> None:
        try:
            talk, _ = self.listener.accept()
        except OSError:
            # too many open files, say: who asks is still there, and would be noticed at once again
            time.sleep(0.05)
            return
        talk.settimeout(10)
        streams: list[int] = []
        try:
            size, streams, _, _ = socket.recv_fds(talk, 4, len(STREAMS))
            order = unpack(receive(talk, int.from_bytes(size, "big")))
            if len(streams) != len(STREAMS):
                raise ValueError("the streams of a job did not arrive")
            self._foresee(order)
            # one that comes meanwhile waits until the job can be told
            before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
            try:
                job = _Job(talk, _process_at(talk) == self.main)
                pid = os.fork()
                if pid == 0:
                    self._become(job, streams, order, before)
                self.jobs[pid] = job
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            self.wait.register(talk, selectors.EVENT_READ, pid)
        except (OSError, EOFError, ValueError):
            traceback.print_exc()
        finally:
            for stream in streams:
                os.close(stream)

    def _foresee(self, order: Order) -> None:
        """Load once what all jobs need that are like the first one."""
        foresee, self.foresee = self.foresee, None
        if foresee:
            # the job itself meets the same trouble, and tells of it
            with contextlib.suppress(Exception):
                foresee(order)

    def _pass_on(self, number: int, _: object) -> None:
        """The main process waits for its jobs in threads, which get no signals; other clients end theirs themselves."""
        self.asked.append(number)
        self.asked_s = 0.0
        for pid, job in [*self.jobs.items()]:
            if job.of_main and not job.told:
                send(pid, _asks(number))

    def _forget(self) -> None:
        """All who waited have their jobs; but a thread of the main process may be just about to ask for one."""
        self.asked_s = self.asked_s or time.monotonic()
        if time.monotonic() > self.asked_s + RECENT_S:
            self.asked.clear()

    def _become(self, job: _Job, streams: list[int], order: Order, mask: Iterable[int]) -> NoReturn:
        """Be the job: the child's side of the fork."""
        code = 1
        # whatever happens, this process is no second server
        try:
            code = self._do(job, streams, order, mask)
            if code == 0 and self.heirs and single_threaded():
                self._succeed(job.talk)
        finally:
            os._exit(code)

    def _do(self, job: _Job, streams: list[int], order: Order, mask: Iterable[int]) -> int:
        """Do the work; its exit code."""
        code, talk = 1, job.talk
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, *ENDS):
                signal.signal(number, signal.SIG_DFL)
            # not in the terminal's foreground, it may write there nevertheless (stty tostop)
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            self.wait.close()
            for other in self.jobs.values():
                other.talk.close()
            os.setpgid(0, 0)
            # before any work: a client that hears nothing does the work itself
            talk.sendall(os.getpid().to_bytes(4, "big"))
            if self.asked and job.of_main:
                send(os.getpid(), _asks(self.asked[-1]))
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            if not self.heirs:
                # no job keeps a client waiting, nor a server's door open when the server is gone
                talk.close()
                self.listener.close()
                os.close(self.lifeline)
            for target, stream in zip(STREAMS, streams, strict=True):
                os.dup2(stream, target)
                os.close(stream)
            folder, words, environment = order
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(environment)
            sys.argv[1:] = words
            # not so while more is still being loaded
            gc.enable()
            code = self.work(words)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            with contextlib.suppress(OSError, ValueError):
                traceback.print_exc()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        return code

    def _succeed(self, talk: socket.socket) -> None:
        """Serve on in place of the parent: what this job compiled and loaded need not be loaded again."""
        # a parent that was killed needs not be told
        with contextlib.suppress(OSError):
            self.crown.send(str(os.getpid()).encode())
        with Path(os.devnull).open("r+b", buffering=0) as null:
            for target in STREAMS:
                os.dup2(null.fileno(), target)
        os.chdir("/")
        gc.collect()
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)
        gc.freeze()
        talk.sendall(_told(os.getpid(), 0))
        talk.close()
        Server(self.listener, self.lifeline, self.work, heirs=False).run()

    def _crown(self) -> None:
        """A job serves on: it answers its client itself, and the next ones are its own."""
        with contextlib.suppress(BlockingIOError):
            while True:
                pid = int(self.throne.recv(16))
                job = self.jobs.pop(pid, None)
                if job:
                    if not job.lost:
                        self.wait.unregister(job.talk)
                    job.talk.close()
                self.successors.add(pid)
                self._listen(False)

    def _reap(self) -> None:
        """Tell those who wait how their jobs ended."""
        self._crown()
        for pid in [*self.jobs, *self.successors]:
            job = self.jobs.get(pid)
            if job and job.told:
                continue
            end = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if end is None:
                continue
            self.doomed.pop(pid, None)
            if job is None or job.lost:
                self._bury(pid)
                continue
            job.told = True
            code = end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
            with contextlib.suppress(OSError):
                job.talk.sendall(_told(pid, code))

    def _bury(self, pid: int) -> None:
        """Give up a process that has ended; another one may get its number now."""
        os.waitpid(pid, 0)
        job = self.jobs.pop(pid, None)
        if job:
            job.talk.close()
        self.successors.discard(pid)
        if not self.successors and self.lifeline >= 0:
            self._listen()

    def _lost(self, pid: int) -> None:
        """The client of a job is gone: it knows how the job ended, or nobody waits for it any more."""
        self._crown()
        job = self.jobs.get(pid)
        if job:
            self.wait.unregister(job.talk)
            job.lost = True
            if job.told:
                self._bury(pid)
            elif not job.of_main:
                send(pid, signal.SIGTERM)
                self.doomed[pid] = time.monotonic() + GRACE_S
            # a main process that was killed leaves its jobs to whoever takes over, which knows how to end them


def _told(pid: int, code: int) -> bytes:
    """How a job ended; its number again, so that nobody takes the code of one that ended at once for its number."""
    return pid.to_bytes(4, "big") + code.to_bytes(4, "big", signed=True)


def _asks(number: int) -> int:
    """The signal that asks a job to end, as this one asked its server: steps know of no terminal."""
    return signal.SIGTERM if number == signal.SIGHUP else number


def _process_at(talk: socket.socket) -> int:
    """The process at the other end of a socket."""
    pid: int = struct.unpack("3i", talk.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))[0]
    return pid
