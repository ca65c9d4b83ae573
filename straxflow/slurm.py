"""What straxflow asks of Slurm itself: how a job ended, and to cancel those of an invocation that has ended."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from straxflow.errors import Cause

log = logging.getLogger(__name__)

JOB_PREFIX = "straxflow_"
"""What the names of batch jobs begin with, before their batch."""
SLURM = "STRAXFLOW_SLURM"
"""Set where this invocation itself sends its jobs to Slurm."""


@dataclass(frozen=True)
class Verdict:
    """What the batch system says of a job: how it ended, in words and as a cause, or that it is not over."""

    words: str
    cause: Cause | None = None
    running: bool = False


CAUSES: dict[str, Cause] = {
    "TIMEOUT": "time-out",
    "DEADLINE": "time-out",
    "OUT_OF_MEMORY": "out of memory",
    "NODE_FAIL": "node failure",
    "BOOT_FAIL": "node failure",
    "CANCELLED": "cancelled",
    "PREEMPTED": "cancelled",
    "REVOKED": "cancelled",
}


def verdict_on(job_id: str) -> Verdict | None:
    """What Slurm says of a job, e.g. `TIMEOUT (time limit 00:30:00)`, `OUT_OF_MEMORY (it had 1000M)`, `NODE_FAIL (node
    n1)`, `CANCELLED`; None if Slurm is not here, does not answer or does not know the job any more."""
    if not shutil.which("scontrol"):
        return None
    try:
        shown = subprocess.run(
            ["scontrol", "-o", "show", "job", job_id],
            capture_output=True, encoding="utf-8", errors="replace", timeout=20, check=False,
        ).stdout  # fmt: skip
    except subprocess.TimeoutExpired:
        return None
    fields = dict(part.split("=", 1) for part in shown.split() if "=" in part)
    state = fields.get("JobState")
    if state is None:
        return None
    if fields.get("Reason") == "TimeLimit":
        state = "TIMEOUT"
    elif state in ("FAILED", "OUT_OF_MEMORY") and _ran_out_of_memory(Path(fields.get("StdOut", "/dev/null"))):
        state = "OUT_OF_MEMORY"
    if state in ("FAILED", "COMPLETED"):
        return _without_a_word(state, fields.get("ExitCode", ""))
    if state not in CAUSES:
        return Verdict(state, running=True)
    memory = re.search(r"\bmem=(\w+)", shown)
    more = {
        "TIMEOUT": f"time limit {fields.get('TimeLimit')}",
        "OUT_OF_MEMORY": f"it had {memory[1] if memory else 'too little'}",
        "NODE_FAIL": f"node {fields.get('NodeList')}",
    }
    return Verdict(f"{state} ({more[state]})" if state in more else state, CAUSES[state])


def _without_a_word(state: str, exit_code: str) -> Verdict:
    """The verdict on a job whose process is gone, though Slurm did nothing to it; its exit code is `code:signal`."""
    found = re.fullmatch(r"(\d+):(\d+)", exit_code)
    code, number = (int(found[1]), int(found[2])) if found else (0, 0)
    number = number or (code - 128 if 128 < code < 160 else 0)
    if number:
        return Verdict(f"its process is gone without a word (Slurm: {state}, signal {number})", "signal")
    return Verdict(f"its process is gone without a word (Slurm: {state})")


def _ran_out_of_memory(log: Path) -> bool:
    # where memory is polled rather than limited by cgroups, the job is just FAILED; only slurmstepd's words tell why
    try:
        said = log.read_text(encoding="utf-8", errors="replace")[-20_000:]
    except OSError:
        return False
    return bool(re.search(r"slurmstepd\S*: error: .*(exceeded (job )?memory limit|oom.kill|OOM Killed)", said))


def jobs_of(batch: str) -> list[str] | None:
    """The jobs, waiting or running, that an invocation has in Slurm now; None if Slurm does not answer."""
    listed = _squeue("--format=%i %j")
    if listed is None:
        return None
    prefix = f"{JOB_PREFIX}{batch}_"
    rows = (line.split(maxsplit=1) for line in listed)
    return [row[0] for row in rows if len(row) == 2 and row[1].startswith(prefix)]


def known_jobs(name: str) -> set[str] | None:
    """The numbers of this user's jobs of a name that Slurm knows, in any state and partition (an array has one number);
    None if it does not answer."""
    listed = _squeue("--all", "--states=all", f"--name={name}", "--format=%F")
    return None if listed is None else {line.strip() for line in listed}


def _squeue(*words: str) -> list[str] | None:
    # a user's own settings of squeue leave jobs out
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    try:
        return subprocess.run(
            ["squeue", "--noheader", "--me", *words],
            capture_output=True, encoding="utf-8", errors="replace", timeout=30, check=True, env=environment,
        ).stdout.splitlines()  # fmt: skip
    except (subprocess.SubprocessError, OSError) as error:
        log.debug("squeue: %s", error)
        return None


def cancel_jobs(batch: str) -> bool:
    """Cancel what an invocation that has ended left in Slurm: its jobs carry its batch in their names.

    Returns:
        False if Slurm is here, but does not answer or refuses.
    """
    if not shutil.which("squeue"):
        return True
    jobs = jobs_of(batch)
    refused = "Slurm does not answer" if jobs is None else None
    if jobs:
        log.warning("cancelling %d batch jobs that invocation %s left", len(jobs), batch)
        try:
            subprocess.run(["scancel", *jobs], timeout=60, check=True, capture_output=True)
        except (subprocess.SubprocessError, OSError) as error:
            refused = str(error)
    if refused and os.environ.get(SLURM):
        # the fence makes leftover jobs harmless; cancelling them only saves their time
        log.warning("batch jobs of %s could not be cancelled: %s", batch, refused)
    return refused is None
