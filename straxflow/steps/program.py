"""Run a program for a step: output into the step's log, a time limit, nothing left running."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from straxflow.errors import ConfigError, StepFailed
from straxflow.steps.job import Job, check_stopped, log
from straxflow.transport.child import die_with_parent

LOOK_S = 2.0
"""How often a running program is looked at, seconds; its end is noticed at once."""


def run_program(job: Job, argv: Sequence[str], environment: Mapping[str, str], timeout_s: float, folder: Path) -> int:
    """Run a command line (no shell) in `folder`; its exit code, negative for a signal.

    Raises:
        ConfigError: if there is no such program.
        StepFailed: if it ran longer than `timeout_s`; it and its children are stopped then.
    """
    log.info("running %s", " ".join(argv))
    with job.log_file.open("ab") as output:
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, **environment},
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGKILL),
            )
        except OSError as error:
            raise ConfigError(f"cannot run {argv[0]!r}: {error.strerror}; check the config") from None
        try:
            deadline = time.monotonic() + timeout_s
            while (left := deadline - time.monotonic()) > 0:
                check_stopped()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(min(left, LOOK_S))
            raise StepFailed(
                f"run {job.run}: {job.product} took longer than {timeout_s:g} s and was stopped; "
                "raise timeout_s if that is not enough"
            )
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def describe_exit(code: int) -> str:
    """An exit code in words; a signal by its name."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"killed by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"
