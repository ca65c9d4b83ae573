"""What straxflow asks of Slurm itself: how a job ended, and to cancel those of an invocation that has ended."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
from pathlib import Path

log = logging.getLogger(__name__)

JOB_PREFIX = "straxflow_"
"""What the names of batch jobs begin with, before their batch."""
RUNNING = "RUNNING"
SLURM = "STRAXFLOW_SLURM"
"""Set where this invocation itself sends its jobs to Slurm."""


def verdict_on(job_id: str) -> str | None:
    """What Slurm says of a job: `RUNNING`, or how it ended, e.g. `TIMEOUT (time limit 00:30:00)`, `OUT_OF_MEMORY
    (it had 1000M)`, `CANCELLED`; None if Slurm is not here, does not answer or does not know the job any more."""
    if not shutil.which("scontrol"):
        return None
    try:
        shown = subprocess.run(
            ["scontrol", "-o", "show", "job", job_id], capture_output=True, text=True, timeout=20, check=False
        ).stdout
    except subprocess.TimeoutExpired:
        return None
    fields = dict(part.split("=", 1) for part in shown.split() if "=" in part)
    state = fields.get("JobState")
    if fields.get("Reason") == "TimeLimit":
        state = "TIMEOUT"
    elif state in ("FAILED", "OUT_OF_MEMORY") and _ran_out_of_memory(Path(fields.get("StdOut", "/dev/null"))):
        state = "OUT_OF_MEMORY"
    if state == "TIMEOUT":
        return f"{state} (time limit {fields.get('TimeLimit')})"
    if state == "OUT_OF_MEMORY":
        memory = re.search(r"\bmem=(\w+)", shown)
        return f"{state} (it had {memory[1] if memory else 'too little'})"
    if state in ("FAILED", "COMPLETED"):
        return f"its process is gone without a word (Slurm: {state})"
    return RUNNING if state in ("PENDING", "CONFIGURING", "COMPLETING", "SUSPENDED") else state


def _ran_out_of_memory(log: Path) -> bool:
    # where memory is polled rather than limited by cgroups, the job is just FAILED; only slurmstepd's words tell why
    try:
        said = log.read_text(encoding="utf-8", errors="replace")[-20_000:]
    except OSError:
        return False
    return bool(re.search(r"slurmstepd\S*: error: .*(exceeded (job )?memory limit|oom.kill|OOM Killed)", said))


def cancel_jobs(batch: str) -> None:
    """Cancel what an invocation that has ended left in Slurm: its jobs carry its batch in their names."""
    if not shutil.which("squeue"):
        return
    try:
        listed = subprocess.run(
            ["squeue", "--noheader", "--me", "--format=%i %j"],
            capture_output=True, text=True, timeout=30, check=True,
        ).stdout  # fmt: skip
        prefix = f"{JOB_PREFIX}{batch}_"
        rows = (line.split(maxsplit=1) for line in listed.splitlines())
        jobs = [row[0] for row in rows if len(row) == 2 and row[1].startswith(prefix)]
        if jobs:
            log.warning("cancelling %d batch jobs that invocation %s left", len(jobs), batch)
            subprocess.run(["scancel", *jobs], timeout=60, check=True, capture_output=True)
    except (subprocess.SubprocessError, OSError) as error:
        # the fence makes leftover jobs harmless; cancelling them only saves their time
        if os.environ.get(SLURM):
            log.warning("batch jobs of %s could not be cancelled: %s", batch, error)
