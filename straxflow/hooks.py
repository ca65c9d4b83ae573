"""Tell a person by a program of theirs (mail, chat); it can neither block straxflow nor make it fail."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import IO, Any, Literal

from straxflow import inherited
from straxflow.config import Config
from straxflow.config.words import fill_command
from straxflow.transport.child import die_with_parent

log = logging.getLogger(__name__)

Kind = Literal["on_failure", "on_stall"]

LONGEST = 2000
"""Characters of a text that is handed to a program."""
SAID = 500
"""Bytes of what it says that are logged."""


@dataclass(frozen=True)
class Facts:
    """What a hook is told; what does not apply stays empty. `log` is a path, `count` how often the run has failed."""

    state: str
    reason: str
    run: str = ""
    number: int | None = None
    mode: str = ""
    step: str = ""
    product: str = ""
    log: str = ""
    batch: str = ""
    count: int = 0


def run_hook(config: Config, kind: Kind, facts: Facts, several: Sequence[Facts] = ()) -> bool:
    """Run a hook, if there is one, for at most `hooks.timeout_s`; whether it ran and ended well.

    A hook's failure is logged and nothing else. `several` are the runs that one call tells of together; `facts` then
    sums them up.
    """
    command: str | None = getattr(config.hooks, kind)
    if command is None:
        return False
    fields = {name: _plain(value) for name, value in asdict(facts).items()}
    argv = fill_command(command, {"site": config.site, **fields})
    told = {"kind": kind, "site": config.site, **fields, "runs": [asdict(one) for one in several]}
    try:
        with tempfile.TemporaryFile() as words:
            words.write(json.dumps(told).encode())
            words.seek(0)
            code, said = _run(argv, words, inherited.environment(config), config.hooks.timeout_s)
    except OSError as error:
        log.warning("hooks.%s: cannot run %r: %s", kind, argv[0], error.strerror or error)
        return False
    if code == 0:
        return True
    how = f"did not end within {config.hooks.timeout_s:g} s and was stopped" if code is None else f"exit code {code}"
    log.warning("hooks.%s (%s): %s%s", kind, argv[0], how, f": {said}" if said else "")
    return False


def _run(
    argv: Sequence[str], words: IO[bytes], environment: dict[str, str], timeout_s: float
) -> tuple[int | None, str]:
    """Exit code (None if it was stopped) and last words of a program."""
    process = subprocess.Popen(
        argv,
        stdin=words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
        preexec_fn=die_with_parent(),
    )
    assert process.stdout is not None
    output = process.stdout.fileno()
    os.set_blocking(output, False)
    said, ended = b"", False
    deadline = time.monotonic() + timeout_s
    try:
        # its own end counts, not that of its output: what it leaves in the background may hold that open for ever
        while (code := process.poll()) is None and (left := deadline - time.monotonic()) > 0:
            if ended:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(left)
            elif select.select([output], [], [], min(left, 0.1))[0]:
                more = os.read(output, 65_536)
                said, ended = (said + more)[-SAID:], not more
        with contextlib.suppress(BlockingIOError):
            said = (said + os.read(output, 65_536))[-SAID:]
        return code, " | ".join(said.decode(errors="replace").split("\n")).strip(" |")
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        process.stdout.close()


def _plain(value: Any) -> Any:
    """As a word of a command line can hold it."""
    if value is None:
        return ""
    if isinstance(value, str):
        return "".join(c if c.isprintable() else " " for c in value)[:LONGEST]
    return value
