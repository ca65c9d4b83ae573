"""Make one product in private scratch, judge what was made, publish it to staging."""

from __future__ import annotations

import socket
import time
from fnmatch import fnmatchcase
from pathlib import Path

from straxflow import redo
from straxflow.campaigns import source_state
from straxflow.config import LIVE
from straxflow.digests import describe, hash_tree, hasher_of, verify_tree
from straxflow.errors import Damaged, StepFailed
from straxflow.folders import open_store
from straxflow.fsio import fsync_path, incoming_name, reap, remove_tree, set_aside
from straxflow.known import unlike_known
from straxflow.permissions import grant
from straxflow.publish import SetAside, copy_tree, publish
from straxflow.receipts import Checksums, Processed, Stored, Target, Transferred
from straxflow.settings import settings_digest
from straxflow.staged import changed
from straxflow.steps import commandjob, straxstep
from straxflow.steps.existing import Existing, look
from straxflow.steps.job import Job, Step, log
from straxflow.steps.made import Made
from straxflow.steps.summary import summarise
from straxflow.straxjob.validate import read_metadata, same_data


def process(job: Job) -> Processed:
    """Make the product of a job."""
    config = job.config
    product = config.products[job.product]
    began = time.monotonic()
    scratch_root = config.folders.scratch_folder
    scratch_root.mkdir(exist_ok=True)
    reap(scratch_root)
    reap(config.folders.staging)
    scratch = scratch_root / incoming_name()
    scratch.mkdir()
    try:
        source = _source_folder(job, scratch)
        work = straxstep.make if product.kind == "strax" else commandjob.make
        existing = look(job)
        made = work(job, source, scratch, existing)
        records_in, records_out = _records(job, made)
        job.fence.check()
        targets = {name: _publish(job, name, target, made, existing) for name, target in made.targets.items()}
        redo.fulfil(job.state, job.run, job.product)
        seconds = time.monotonic() - began
        summarise(job, targets, scratch)
    finally:
        remove_tree(scratch)
    return Processed(
        run=job.run,
        product=job.product,
        source=product.source,
        source_campaign=config.taken_from(product.source),
        corrections=config.reprocessing.corrections if config.reprocessing else None,
        targets=targets,
        settings=settings_digest(config, job.product),
        records_in=records_in,
        records_out=records_out,
        dead_time_records=made.dead_time_records,
        dead_time_ns=made.dead_time_ns,
        versions=made.versions,
        host=socket.gethostname(),
        seconds=round(seconds, 3),
        cpu_seconds=made.cpu_seconds,
        peak_rss_mb=made.peak_rss_mb,
        adopted=", ".join(map(str, made.already_stored.values())) or None,
    )


def _source_folder(job: Job, scratch: Path) -> Path:
    """The folder that holds the source, whole: the live copy, staging, the store, or fetched from a remote one."""
    source = job.config.products[job.product].source
    if source == LIVE:
        _check_live_copy(job)
        return job.config.folders.live
    state = source_state(job.config, job.state, source)
    made = state.get(job.run, source, Processed)
    folders = [target.folder for target in made.targets.values()]
    for staging in (job.config.folders.staging, *job.other_staging):
        if all((staging / folder).is_dir() for folder in folders):
            if odd := changed(staging, made, state.find(job.run, source, Checksums)):
                raise Damaged("; ".join(f"{staging / name}: changed since it was made: {odd[name]}" for name in odd))
            return staging
    stored = state.find(job.run, source, Stored)
    if stored is None:
        raise StepFailed(
            f"run {job.run}: the source {source} is neither in {job.config.folders.staging} nor stored; make it again: "
            f"snakemake ... runs/{job.run}/{source}/{Processed.name} -R process"
        )
    store = open_store(job.config)
    store.check_marker("store", job.config.site)
    manifest = stored.manifest(state.get(job.run, source, Checksums))
    fetched = scratch / "source"
    fetched.mkdir()
    for folder in folders:
        log.info("bringing %s back from the store", folder)
        store.fetch(folder, fetched / folder, manifest.below(folder))
    return fetched


def _check_live_copy(job: Job) -> None:
    received = job.state.get(job.run, LIVE, Transferred)
    folder = job.config.folders.live / job.run
    if not folder.is_dir():
        raise StepFailed(
            f"run {job.run}: its live data are not at {folder} any more; bring them again: "
            f"snakemake ... runs/{job.run}/{LIVE}/{Transferred.name} -R transfer"
        )
    # strax reads the same bytes next, from the page cache that this fills
    if odd := verify_tree(folder, received.manifest, cold=False, threads=max(job.threads, 2)):
        raise Damaged(f"run {job.run}: {folder} changed since it arrived: {describe(odd)}")


def _records(job: Job, made: Made) -> tuple[int | None, int | None]:
    """Records in and out of a product made from live data: none may vanish unless the reader says so."""
    if job.config.products[job.product].source != LIVE:
        return None, None
    check = job.state.get(job.run, LIVE, Transferred).check
    counted = job.config.products[job.product].counted
    raw = [t.records for name, t in made.targets.items() if fnmatchcase(name, counted)]
    if check is None or not raw:
        return None, None
    records_out = sum(raw) - made.dead_time_records
    if records_out != check.records and not (made.dead_time_ns > 0 and records_out < check.records):
        raise Damaged(
            f"run {job.run}: {job.product} has {records_out} records, the live data have {check.records}, and "
            "the reader reports no artificial dead time that would explain it; nothing was published"
        )
    if records_out != check.records:
        log.warning(
            "%d of %d records were dropped as artificial dead time (%.6f s)",
            check.records - records_out, check.records, made.dead_time_ns / 1e9,
        )  # fmt: skip
    return check.records, records_out


def _publish(job: Job, name: str, target: Target, made: Made, existing: Existing) -> Target:
    """Publish a target to staging; gives it with the digest of what stands there now, for the steps that follow."""
    staging = job.config.folders.staging
    final = staging / target.folder
    made_here = made.folders[name]
    if name in made.already_stored:
        if made.already_stored[name].parent == staging:
            return _with_digest(job, target)
        stored = made.already_stored[name]
        hashed = hasher_of(stored)
        if why := unlike_known(existing.known, target.folder, hashed):
            raise Damaged(f"run {job.run}: {stored} changed meanwhile: {why}")
        copy_tree(stored, made_here, hashed(job.config.checksum))
    grant(job.config, made_here)
    if final in existing.unfit and final.is_dir() and not _same(final, made_here):
        log.warning("%s broke (%s): now %s", final, existing.unfit[final], set_aside(final).name)
    outcome = publish(made_here, final, _same)
    fsync_path(staging)
    if isinstance(outcome, SetAside):
        raise Damaged(
            f"run {job.run}: {final} is there already with different data; it stays, the new one is at "
            f"{outcome.aside}; find out which is right and move the other away"
        )
    return _with_digest(job, target)


def _with_digest(job: Job, target: Target) -> Target:
    found = hash_tree(job.config.folders.staging / target.folder, job.config.checksum, threads=job.threads)
    return target.model_copy(update={"digest": found.digest})


def _same(there: Path, new: Path) -> bool:
    """Whether two data folders hold the same: data files to the bit, strax metadata but for write times."""
    one, other = hash_tree(there), hash_tree(new)
    odd = {d.path for d in one.differences(other.files)}
    metadata = {path for path in odd if path.endswith("-metadata.json")}
    if odd - metadata:
        return False
    return not metadata or same_data(read_metadata(there), read_metadata(new))


step = Step("process", process)
