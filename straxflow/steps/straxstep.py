"""Run the strax job in the site's Python and judge its result; strax itself is never imported here."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from straxflow.campaigns import source_state
from straxflow.config import LIVE, Config
from straxflow.config.load import ROOT
from straxflow.errors import Damaged, Misconfigured, StepFailed
from straxflow.forks.shared import STRAX
from straxflow.fsio import walk_files
from straxflow.lastwords import last_words
from straxflow.receipts import Processed, RunFacts, Target
from straxflow.steps.existing import Existing
from straxflow.steps.job import Job, log
from straxflow.steps.made import Made
from straxflow.steps.program import Exit, failure, run_program
from straxflow.straxjob.validate import Coverage, check_strax_folder


def make(job: Job, source: Path, scratch: Path, existing: Existing) -> Made:
    """Make the data types of a product with strax in `scratch`."""
    config, chosen = job.config, job.config.products[job.product]
    output = scratch / "out"
    output.mkdir()
    request, result_file = scratch / "job.json", scratch / "result.json"
    facts = job.state.facts(job.run)
    request.write_text(json.dumps(_request(job, facts, source, output, existing)), encoding="utf-8")
    python = config.strax.python
    argv = [sys.executable] if python == ["python"] else list(python)
    words = [str(request), str(result_file)]
    argv += ["-m", "straxflow.straxjob", *words]
    environment = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "", **config.strax.environment}
    timeout_s = chosen.timeout_s or config.strax.timeout_s
    server = os.environ.get(STRAX)
    ended = run_program(job, argv, environment, timeout_s, scratch, (server, words) if server else None)
    result = _result(job, result_file, ended)
    targets, folders, stored = {}, {}, {}
    for name in config.targets(job.product):
        described = result["targets"][name]
        there = described.get("already_stored")
        folder = output / described["folder"]
        where = Path(there) if there else folder
        found = check_strax_folder(where, coverage(config, facts))
        if found.n_records != described["n_records"] or found.data_type != name or found.run != job.run:
            raise Damaged(
                f"{where}: found {found.n_records} records of {found.data_type}, run {found.run}; strax reported "
                f"{described['n_records']} records of {name}, run {job.run}"
            )
        sizes = [size for _, size in walk_files(where)]
        targets[name] = Target(
            folder=found.folder,
            lineage_hash=found.lineage_hash,
            lineage=described.get("lineage") or {},
            chunks=found.n_chunks,
            records=found.n_records,
            bytes=sum(sizes),
            files=len(sizes),
            start_ns=found.start,
            end_ns=found.end,
        )
        folders[name] = folder
        if there:
            stored[name] = where
            log.info("%s is already stored at %s", name, where)
    dead = [t["dead_time"] for t in result["targets"].values() if t.get("dead_time")]
    return Made(
        targets=targets,
        folders=folders,
        already_stored=stored,
        versions={name: _version(v) for name, v in result.get("versions", {}).items()},
        cpu_seconds=result["cpu_seconds"],
        peak_rss_mb=result["peak_rss_mb"],
        dead_time_records=sum(d["records"] for d in dead),
        dead_time_ns=sum(d["ns"] for d in dead),
    )


def _request(job: Job, facts: RunFacts, source: Path, output: Path, existing: Existing) -> dict[str, Any]:
    config, chosen = job.config, job.config.products[job.product]
    source_types = {}
    if chosen.source != LIVE:
        made = source_state(config, job.state, chosen.source).get(job.run, chosen.source, Processed)
        source_types = {name: target.lineage_hash for name, target in made.targets.items()}
    return {
        "run": job.run,
        "facts": facts.model_dump(mode="json"),
        "context": chosen.context or config.strax.context,
        "context_kwargs": {**config.strax.context_kwargs, **chosen.context_kwargs},
        "config": {**config.strax.config, **chosen.config},
        "source": "live" if chosen.source == LIVE else "data",
        "source_folder": str(source),
        "source_types": source_types,
        "output_folder": str(output),
        "targets": config.targets(job.product),
        "existing_folders": [str(path) for path in existing.places],
        "unfit_folders": [str(path) for path in existing.unfit],
        "from_scratch": job.from_scratch,
        "workers": chosen.workers or config.strax.workers,
    }


def coverage(config: Config, facts: RunFacts) -> Coverage:
    """The time that data of a run must cover."""
    chunk = float(facts.daq_config.get("strax_chunk_length", 0) or 0)
    overlap = float(facts.daq_config.get("strax_chunk_overlap", 0) or 0)
    gap = config.strax.max_gap_s
    return Coverage(
        start=int(facts.start.timestamp() * 1e9),
        end=int(facts.end.timestamp() * 1e9),
        may_miss=int(gap * 1e9),
        may_exceed=int((chunk + overlap + gap) * 1e9),
    )


def _result(job: Job, file: Path, ended: Exit) -> dict[str, Any]:
    try:
        result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise failure(f"run {job.run}: the strax process ended without a result: {ended}", ended.cause) from None
    except ValueError as unreadable:
        raise StepFailed(f"run {job.run}: the result of the strax process is not readable: {unreadable}") from None
    error = result.get("error")
    if error or ended.code or not result.get("ok"):
        told = f"{error['type']}: {_brief(error['message'])}" if error else str(ended)
        message = f"run {job.run}: strax could not make {job.product}: {told}"
        if error and ended.code == 2:
            raise Misconfigured(message)
        raise failure(message, "out of memory" if error and "MemoryError" in error["type"] else ended.cause)
    return result


def _brief(message: str) -> str:
    """The first line of a message, which may have many, and what its last ones say."""
    first, _, more = message.strip().partition("\n")
    said = last_words(more)
    return f"{first} | {said}" if said else first


def _version(described: Any) -> str:
    if not isinstance(described, dict):
        return str(described)
    text = str(described.get("version"))
    commit = described.get("commit")
    return f"{text} ({commit}{', changed' if described.get('dirty') else ''})" if commit else text
