"""Run a program for a step: output into the step's log, a time limit, nothing left running."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from straxflow import inherited
from straxflow.errors import Cause, Misconfigured, Retryable, StepFailed, StraxflowError, no_fault
from straxflow.forks.client import ServedJob
from straxflow.lastwords import last_words_of
from straxflow.memory import oom_kills
from straxflow.steps.job import Job, check_stopped, log
from straxflow.transport.child import die_with_parent

LOOK_S = 2.0
"""How often a running program is looked at, seconds; its end is noticed at once."""


@dataclass(frozen=True)
class Exit:
    """How a program ended: its exit code, negative for a signal; the cause, if it was killed; and its last words."""

    code: int
    said: str = ""
    cause: Cause | None = None

    def __str__(self) -> str:
        how = f"exit code {self.code}" if self.code >= 0 else f"killed by signal {-self.code}{_signal_name(-self.code)}"
        how += ", out of memory" if self.cause == "out of memory" else ""
        return f"{how}: {self.said}" if self.said else how


def failure(message: str, cause: Cause | None = None) -> StraxflowError:
    """A program's failure as an error, by its last words."""
    if advice := no_fault(message):
        return Retryable(f"{message}: {advice}")
    return StepFailed(message, cause)


def run_program(
    job: Job,
    argv: Sequence[str],
    environment: Mapping[str, str],
    timeout_s: float,
    folder: Path,
    served: tuple[str, Sequence[str]] | None = None,
) -> Exit:
    """Run a command line (no shell) in `folder`, or do the same by a server, if one is named (its address, and the
    words of the job) and there.

    Raises:
        Misconfigured: if there is no such program.
        StepFailed: if it ran longer than `timeout_s`; it and its children are stopped then.
        Retryable: if its server was killed, which says nothing of the run; StepFailed, if memory was short.
    """
    log.info("running %s", " ".join(argv))
    killed_before = oom_kills()
    environment = {**inherited.environment(job.config), **environment}
    deadline = time.monotonic() + timeout_s
    with job.log_file.open("ab") as output:
        began = output.tell()
        by_server = _served(*served, environment, folder, output) if served else None
        process = by_server or _started(argv, environment, folder, output)
        try:
            while (left := deadline - time.monotonic()) > 0:
                check_stopped()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = _wait(process, min(left, LOOK_S))
                    if by_server and by_server.lost:
                        raise _lost(job, killed_before)
                    return _exit(code, killed_before, job.log_file, began)
            raise StepFailed(
                f"run {job.run}: {job.product} took longer than {timeout_s:g} s and was stopped; "
                "raise timeout_s if that is not enough",
                "time-out",
            )
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _served(
    server: str, words: Sequence[str], environment: Mapping[str, str], folder: Path, output: IO[bytes]
) -> ServedJob | None:
    with Path(os.devnull).open("rb") as nothing, contextlib.suppress(OSError, EOFError):
        return ServedJob(server, words, environment, folder, (nothing.fileno(), output.fileno(), output.fileno()))
    return None


def _started(
    argv: Sequence[str], environment: Mapping[str, str], folder: Path, output: IO[bytes]
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGKILL),
        )
    except OSError as error:
        raise Misconfigured(f"cannot run {argv[0]!r}: {error.strerror}; check the config") from None


def _wait(process: subprocess.Popen[bytes] | ServedJob, most_s: float) -> int:
    """The exit code of a program; its own `wait` with a time limit looks only every 50 ms.

    Raises:
        subprocess.TimeoutExpired: if it still runs.
    """
    if isinstance(process, ServedJob):
        return process.wait(most_s)
    # kernels before 5.3 have no such handles
    with contextlib.suppress(OSError):
        handle = os.pidfd_open(process.pid)
        try:
            ended = select.poll()
            ended.register(handle, select.POLLIN)
            if ended.poll(most_s * 1000):
                # nothing of it works on; it keeps its number until it is waited for
                os.killpg(process.pid, signal.SIGKILL)
        finally:
            os.close(handle)
        most_s = 0
    return process.wait(most_s)


def _exit(code: int, killed_before: int | None, log_file: Path, began: int) -> Exit:
    said = last_words_of(log_file, began) if code else ""
    # a shell tells by 128 + n that a signal ended its program
    by_signal = -code if code < 0 else code - 128 if 128 < code < 128 + signal.NSIG else 0
    if not by_signal:
        return Exit(code, said)
    out_of_memory = by_signal == signal.SIGKILL and _short_of_memory(killed_before)
    return Exit(code, said, "out of memory" if out_of_memory else "signal")


def _short_of_memory(killed_before: int | None) -> bool:
    """Whether the kernel has killed for lack of memory since then."""
    return killed_before is not None and oom_kills() != killed_before


def _lost(job: Job, killed_before: int | None) -> StraxflowError:
    """A job's server is gone; only for lack of memory that may be the run's own doing."""
    told = f"run {job.run}: the process that {job.product} was made by a fork of was killed"
    return StepFailed(told, "out of memory") if _short_of_memory(killed_before) else Retryable(told)


def _signal_name(number: int) -> str:
    try:
        return f" ({signal.Signals(number).name})"
    except ValueError:
        return ""
