"""A product of kind command: any program, under the same care as strax."""

from __future__ import annotations

import resource
from pathlib import Path

from straxflow.config.words import fill_command
from straxflow.errors import StepFailed, as_text
from straxflow.fsio import walk_files
from straxflow.receipts import Target
from straxflow.settings import settings_digest
from straxflow.steps.existing import Existing
from straxflow.steps.job import Job
from straxflow.steps.made import Made
from straxflow.steps.program import failure, run_program


def make(job: Job, source: Path, scratch: Path, existing: Existing) -> Made:
    """Run the command of a product; success is exit code 0 and at least one file, none of them empty."""
    chosen = job.config.products[job.product]
    facts = job.state.facts(job.run)
    lineage = settings_digest(job.config, job.product)
    name = f"{job.run}-{job.product}-{lineage}"
    output = scratch / "out" / name
    output.mkdir(parents=True)
    there = job.config.folders.staging / name
    if there.is_dir() and there not in existing.unfit and not job.from_scratch:
        # published by an attempt that was killed before its receipt: it is whole, or it would not have its name
        return _made(job, there, output, name, lineage, 0, 0, {job.product: there})
    fields = {
        "run": job.run, "number": facts.number, "mode": facts.mode,
        "source": source, "output": output, "product": job.product,
        "corrections": (job.config.reprocessing.corrections if job.config.reprocessing else None) or "",
    }  # fmt: skip
    argv = fill_command(chosen.command or "", fields)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = run_program(
        job, argv, job.config.strax.environment, chosen.timeout_s or job.config.strax.timeout_s, scratch
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended.code:
        raise failure(f"run {job.run}: the command of {job.product} failed: {ended}", ended.cause)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return _made(job, output, output, name, lineage, used, after.ru_maxrss / 1024, {})


def _made(
    job: Job, folder: Path, output: Path, name: str, lineage: str, cpu: float, rss: float, stored: dict[str, Path]
) -> Made:
    files = walk_files(folder)
    if not files:
        raise StepFailed(f"run {job.run}: the command of {job.product} left no file in {{output}}")
    if odd := [path for path, _ in files if as_text(path) != path]:
        raise StepFailed(f"run {job.run}: the command of {job.product} left a file whose name is no UTF-8, {odd[0]!r}")
    if empty := [path for path, size in files if not size]:
        raise StepFailed(f"run {job.run}: the command of {job.product} left an empty file, {empty[0]!r}")
    target = Target(
        folder=name,
        lineage_hash=lineage,
        chunks=0,
        records=0,
        bytes=sum(size for _, size in files),
        files=len(files),
    )
    return Made(
        targets={job.product: target},
        folders={job.product: output},
        already_stored=stored,
        versions={},
        cpu_seconds=cpu,
        peak_rss_mb=rss,
    )
