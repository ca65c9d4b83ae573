"""Let a program summarise a product that was just made; whatever goes wrong, the product is none the worse."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from straxflow import summaries
from straxflow.config.load import ROOT
from straxflow.config.words import fill_command
from straxflow.errors import StepFailed, StraxflowError
from straxflow.receipts import Target
from straxflow.steps.job import Job, log
from straxflow.steps.program import run_program


def summarise(job: Job, targets: dict[str, Target], scratch: Path) -> None:
    """Have the summary of a product made, or take the one that its own command left among the data."""
    try:
        summaries.drop(job.state, job.run, job.product)
        chosen = job.config.products[job.product]
        data = job.config.folders.staging / next(iter(targets.values())).folder
        if chosen.summary:
            written = scratch / "summary"
            written.mkdir()
            _run(job, chosen.summary, data, written)
        elif chosen.kind == "command" and (data / summaries.Summary.name).is_file():
            written = data
        else:
            return
        summary = summaries.take(job.state, job.run, job.product, written)
        log.info("summary: %s", json.dumps(summary.values))
    except (StraxflowError, OSError) as error:
        log.warning("no summary of %s: %s", job.product, error)


def _run(job: Job, command: str, data: Path, output: Path) -> None:
    config = job.config
    fields = {
        "run": job.run, "number": job.state.facts(job.run).number, "mode": job.state.facts(job.run).mode,
        "product": job.product, "data": data, "output": output,
    }  # fmt: skip
    argv = fill_command(command, fields)
    if argv[0] == "python":
        # the one that can read the data
        argv[:1] = [sys.executable] if config.strax.python == ["python"] else config.strax.python
    environment = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "", **config.strax.environment}
    ended = run_program(job, argv, environment, config.products[job.product].summary_timeout_s, output)
    if ended.code:
        raise StepFailed(f"its command failed ({ended})")
