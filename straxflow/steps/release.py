"""Drop staging and live copies, each only after other copies were read back past the page cache and matched."""

from __future__ import annotations

import contextlib
from pathlib import Path

from straxflow.config import LIVE
from straxflow.digests import describe, hash_tree, verify_tree
from straxflow.errors import StepFailed, StraxflowError
from straxflow.folders import open_store
from straxflow.fsio import fsync_path, incoming_name, remove_tree, rename_noreplace
from straxflow.receipts import Checksums, Processed, Registered, Released, Stored, Transferred
from straxflow.rundb import entries
from straxflow.rundb.client import connect
from straxflow.steps.job import Job, Step, log
from straxflow.steps.move_out import only_times_differ
from straxflow.transport.rsync import Place, Rsync


def release(job: Job) -> Released:
    """Drop what is stored elsewhere; what cannot be proven to be stays, and the receipt says why."""
    facts = job.state.facts(job.run)
    dropped: dict[str, str] = {}
    kept: dict[str, str] = {}
    freed = 0
    config = job.config
    products = config.products_for(facts.mode)
    verified = {name: _verified_in_store(job, name) for name in products}
    live_copy = config.folders.live / job.run
    others = _other_copies_of_live(job, verified) if "transfer" in config.steps else []
    for name in products:
        made = job.state.get(job.run, name, Processed)
        for target in made.targets.values():
            folder = config.folders.staging / target.folder
            if not folder.is_dir():
                dropped[str(folder)] = "was dropped before"
                continue
            reason = _keep_staging(job, name, folder, verified, live_copy, others)
            if reason:
                kept[str(folder)] = reason
                continue
            job.fence.check()
            _drop(folder)
            freed += target.bytes
            dropped[str(folder)] = f"read back in the store ({job.state.get(job.run, name, Stored).location})"
    if live_copy.is_dir():
        received = job.state.get(job.run, LIVE, Transferred)
        reason = _keep_live(job, live_copy, received, others)
        if reason:
            kept[str(live_copy)] = reason
        else:
            job.fence.check()
            _retire_entry(job, facts.number)
            _drop(live_copy)
            freed += received.bytes
            dropped[str(live_copy)] = "two other copies read back: " + "; ".join(others)
    for what, why in kept.items():
        log.info("kept %s: %s", what, why)
    return Released(run=job.run, dropped=dropped, kept=kept, bytes=freed)


def _verified_in_store(job: Job, product: str) -> bool:
    """Read a product in the store past the page cache; anything that differs stops the release."""
    stored = job.state.get(job.run, product, Stored)
    manifest = job.state.get(job.run, product, Checksums).manifest
    store = open_store(job.config)
    store.check_marker("store", job.config.site)
    for folder in stored.folders:
        differences = store.verify(folder, manifest.below(folder), cold=True)
        if folder in stored.adopted:
            differences = [d for d in differences if not only_times_differ(job, store, folder, d)]
        if differences:
            raise StepFailed(
                f"run {job.run}: {product} in the store differs from its manifest: {describe(differences)}; nothing "
                "more is dropped. Move it away there, and store it again: snakemake ... "
                f"runs/{job.run}/{product}/{Stored.name} -R move_out"
            )
    return True


def _keep_staging(
    job: Job, product: str, folder: Path, verified: dict[str, bool], live_copy: Path, others: list[str]
) -> str | None:
    """Why a staging copy must stay; None if it may go."""
    if job.config.release.staging == "keep" or job.config.products[product].keep_staging:
        return "configured to be kept"
    if not verified[product]:
        return "the store's copy was not verified"
    if job.config.products[product].source == LIVE and not (live_copy.is_dir() or others):
        return "it is raw data and there is only one other copy of it"
    manifest = job.state.get(job.run, product, Checksums).manifest.below(folder.name)
    with contextlib.suppress(OSError):
        if hash_tree(folder, manifest.algorithm).rows == manifest.rows:
            return None
    return "it is not what its manifest says; look at it before removing it by hand"


def _other_copies_of_live(job: Job, verified: dict[str, bool]) -> list[str]:
    """Other copies of the live data, each just read back: the DAQ's own, and a stored product with every record."""
    found = []
    received = job.state.get(job.run, LIVE, Transferred)
    if job.config.release.live == "drop":
        place = Place(str(job.config.daq.folder / job.run), job.config.daq.ssh)
        try:
            rsync = Rsync(place, ["-a"], job.config.daq.ssh_options, log=log.info)
            at_daq = rsync.digests(24 * 3600)
            if not received.manifest.differences(at_daq):
                found.append(f"the DAQ's at {place}")
        except StraxflowError as error:
            log.info("the DAQ's copy could not be read: %s", error)
        facts = job.state.facts(job.run)
        for name in job.config.consumers(LIVE, facts.mode):
            made = job.state.get(job.run, name, Processed)
            if verified[name] and made.records_in is not None and made.records_in == made.records_out:
                found.append(f"all {made.records_out} records as {name} in the store")
                break
    return found


def _keep_live(job: Job, folder: Path, received: Transferred, others: list[str]) -> str | None:
    if job.config.release.live == "keep":
        return "configured to be kept (release.live)"
    if len(others) < 2:
        return f"needs two other verified copies, found {len(others)}: {'; '.join(others) or 'none'}"
    if differences := verify_tree(folder, received.manifest):
        return f"it changed since it arrived: {describe(differences)}"
    return None


def _retire_entry(job: Job, number: int) -> None:
    registered = job.state.get(job.run, LIVE, Registered)
    with connect(job.config) as db:
        for entry in registered.entries:
            entries.retire(
                db,
                job.campaign,
                number,
                job.fence.batch,
                job.fence.token,
                entry,
                "released: two other copies",
            )


def _drop(folder: Path) -> None:
    """Take the folder's name away first, so that a kill half-way leaves nothing that looks whole."""
    doomed = folder.parent / incoming_name(folder.name)
    rename_noreplace(folder, doomed)
    fsync_path(folder.parent)
    remove_tree(doomed)


step = Step("release", release)
