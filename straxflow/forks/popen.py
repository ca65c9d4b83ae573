"""Jobs by the invocation's fork server, where Snakemake would start a shell, and that a Python, for each.

Snakemake sees of a job what it sees of a process that it started: how it ended, and its number, to measure it by.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Mapping
from typing import Any

from straxflow.forks.client import ServedJob
from straxflow.forks.shared import STEPS

COMMAND = re.compile(r"set -euo pipefail; +straxflow-step((?: +[\w./:@%+=-]+)+)")
"""What Snakemake gives to bash for one of our jobs: words that mean the same without a shell, and nothing else."""


class Subprocess:
    """Stands for the module `subprocess`, with another Popen."""

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)

    def Popen(self, command: str, *, env: Mapping[str, str], **how: Any) -> ServedJob | subprocess.Popen[Any]:
        """Let the server do a job; start all else as ever, and jobs too where there is no server."""
        server, ours = env.get(STEPS), COMMAND.fullmatch(command)
        if server and ours and how.get("stdout") != subprocess.PIPE:
            with contextlib.suppress(OSError, EOFError):
                return ServedJob(server, ours[1].split(), env)
        return subprocess.Popen(command, env=env, **how)
