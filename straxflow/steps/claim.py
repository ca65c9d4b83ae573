"""The claim of a batch, and the run facts; both talk to the run database."""

from __future__ import annotations

import logging

from straxflow.invocation import Invocation
from straxflow.steps.job import Call

log = logging.getLogger("straxflow")


def claim_batch(call: Call, invocation: Invocation) -> None:
    """Claim pending runs into the batch file."""
    batch = invocation.claim_batch(call.receipt.absolute())
    for problem in batch.problems:
        log.warning("%s", problem)
        print(f"straxflow: {problem}")
    newest = ", ".join(run.run for run in batch.runs[:10]) + (", ..." if len(batch.runs) > 10 else "")
    print(f"straxflow: claimed {len(batch.runs)} pending runs{': ' + newest if newest else ''}", flush=True)


def write_facts(call: Call, invocation: Invocation) -> None:
    """Write run.json from the run document."""
    invocation.write_facts(call.run, call.receipt.absolute())
