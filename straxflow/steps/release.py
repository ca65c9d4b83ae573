"""Drop staging and live copies, each only after other copies were read back past the page cache and matched."""

from __future__ import annotations

from pathlib import Path

from straxflow.config import LIVE
from straxflow.daqfolder import run_place
from straxflow.digests import describe, verify_tree
from straxflow.errors import StepFailed
from straxflow.folders import open_store
from straxflow.fsio import (
    MARKER,
    fsync_path,
    incoming_name,
    is_incoming_of,
    owner_is_dead,
    remove_tree,
    rename_noreplace,
)
from straxflow.receipts import Checksums, Processed, Registered, Released, Stored, Transferred
from straxflow.rundb.client import connect
from straxflow.steps.job import Job, Step, log
from straxflow.steps.move_out import only_times_differ
from straxflow.steps.register import entries_of
from straxflow.transport import open_store as open_store_at
from straxflow.transport.rsync import Rsync


def release(job: Job) -> Released:
    """Drop what is stored elsewhere; what cannot be proven to be stays, and the receipt says why."""
    facts = job.state.facts(job.run)
    made = [product for product in job.config.products_for(facts.mode) if product not in job.fence.left_out]
    work = _Release(job, made)
    for product in work.products:
        work.drop_staging(product)
    live_copy = job.config.folders.live / job.run
    if "transfer" in job.config.steps and live_copy.is_dir():
        work.drop_live(live_copy)
    work.finish_earlier_drops(live_copy)
    for what, why in work.kept.items():
        log.info("kept %s: %s", what, why)
    return Released(run=job.run, dropped=work.dropped, kept=work.kept, bytes=work.freed)


class _Release:
    """What is dropped and kept; each proof is read once, when it is first needed."""

    def __init__(self, job: Job, products: list[str]) -> None:
        self.job, self.products = job, products
        self.dropped: dict[str, str] = {}
        self.kept: dict[str, str] = {}
        self.freed = 0
        self._whole_live: str | None = None
        self._whole_at_daq: str | None = None

    def drop_staging(self, product: str) -> None:
        """Drop a product's staging copy: the store's is read back; for raw data a copy of the live data, too."""
        config, state, run = self.job.config, self.job.state, self.job.run
        made = state.get(run, product, Processed)
        for target in made.targets.values():
            folder = config.folders.staging / target.folder
            if not folder.is_dir():
                self.dropped[str(folder)] = "was dropped before"
                continue
            if waiting := self._left_out_of(product):
                self.kept[str(folder)] = waiting
                continue
            if config.release.staging == "keep" or config.products[product].keep_staging:
                self.kept[str(folder)] = "configured to be kept"
                continue
            proofs = [verified_in_store(self.job, product, target.folder)]
            if config.products[product].source == LIVE:
                proofs.append(self._live_elsewhere())
            manifest = state.get(run, product, Checksums).manifest.below(target.folder)
            if differences := verify_tree(folder, manifest, cold=False):
                self.kept[str(folder)] = f"it is not what its manifest says: {describe(differences)}"
                continue
            self.job.fence.check()
            _drop(folder)
            self.freed += target.bytes
            self.dropped[str(folder)] = "read back: " + "; ".join(proofs)

    def _left_out_of(self, source: str) -> str | None:
        """Why a copy is still needed: a product made from it is left out for now, and may be asked for again."""
        left_out = [name for name in self.job.fence.left_out if self.job.config.products[name].source == source]
        return f"{', '.join(left_out)}, made from it, is not stored" if left_out else None

    def finish_earlier_drops(self, live_copy: Path) -> None:
        """Remove what attempts that were killed half-way left of this run: nobody else would come by."""
        config, state, run = self.job.config, self.job.state, self.job.run
        made = (state.get(run, product, Processed) for product in self.products)
        folders = [config.folders.staging / t.folder for processed in made for t in processed.targets.values()]
        for folder in [*folders, live_copy]:
            for left in folder.parent.iterdir():
                if is_incoming_of(left.name, folder.name) and owner_is_dead(left.name):
                    remove_tree(left)

    def drop_live(self, folder: Path) -> None:
        """Drop the live copy here, if so configured: two other copies are read back."""
        config, run = self.job.config, self.job.run
        if config.release.live == "keep":
            self.kept[str(folder)] = "configured to be kept (release.live)"
            return
        if waiting := self._left_out_of(LIVE):
            self.kept[str(folder)] = waiting
            return
        received = self.job.state.get(run, LIVE, Transferred)
        stored = next((p for p in self.products if self._has_every_record(p)), None)
        if stored is None:
            self.kept[str(folder)] = "no product in the store is known to hold every record of the live data"
            return
        at_daq = self._at_daq()
        proofs = [at_daq]
        for target in self.job.state.get(run, stored, Processed).targets.values():
            proofs.append(verified_in_store(self.job, stored, target.folder))
        if differences := verify_tree(folder, received.manifest):
            self.kept[str(folder)] = f"it changed since it arrived: {describe(differences)}"
            return
        self.job.fence.check()
        _retire_entry(self.job)
        _drop(folder)
        self.freed += received.bytes
        self.dropped[str(folder)] = "read back: " + "; ".join(proofs)

    def _has_every_record(self, product: str) -> bool:
        if self.job.config.products[product].source != LIVE:
            return False
        made = self.job.state.get(self.job.run, product, Processed)
        return made.records_in is not None and made.records_in == made.records_out

    def _live_elsewhere(self) -> str:
        """Proof of one whole copy of the live data: here, or else at the DAQ."""
        folder = self.job.config.folders.live / self.job.run
        if self._whole_live is None and folder.is_dir():
            received = self.job.state.get(self.job.run, LIVE, Transferred)
            if not verify_tree(folder, received.manifest):
                self._whole_live = f"the live data at {folder}"
        return self._whole_live or self._at_daq()

    def _at_daq(self) -> str:
        """Proof of the DAQ's own copy, file by file.

        Raises:
            Retryable: if the DAQ cannot be reached; a release is tried again then, not given up.
            StepFailed: if its copy differs, or is ours.
        """
        if self._whole_at_daq is None:
            daq, run = self.job.config.daq, self.job.run
            received = self.job.state.get(run, LIVE, Transferred)
            place = run_place(self.job.config, self.job.state.facts(run))
            if MARKER in open_store_at(Path(place.path).parent, daq.ssh, daq.ssh_options).names():
                raise StepFailed(f"run {run}: daq.folder carries straxflow's own marker: it is no other copy")
            at_daq = Rsync(place, ["-a"], daq.ssh_options, log=log.info).digests(24 * 3600)
            if received.made_here is not None:
                # of a partial run the DAQ has more, and not what was made here to end it
                paths = set(received.manifest.by_path) - set(received.made_here)
                at_daq = [file for file in at_daq if file.path in paths]
                at_daq += [file for file in received.manifest.files if file.path not in paths]
            if differences := received.manifest.differences(at_daq):
                raise StepFailed(
                    f"run {run}: the DAQ's copy at {place} is not what arrived here: {describe(differences)}; nothing "
                    "more is dropped; set release.live and release.staging to keep, or find out why"
                )
            self._whole_at_daq = f"the DAQ's copy at {place}"
        return self._whole_at_daq


def verified_in_store(job: Job, product: str, folder: str) -> str:
    """Read a data folder in the store past the page cache; the proof in words.

    Raises:
        StepFailed: if anything differs.
    """
    stored = job.state.get(job.run, product, Stored)
    manifest = stored.manifest(job.state.get(job.run, product, Checksums))
    store = open_store(job.config)
    store.check_marker("store", job.config.site)
    differences = store.verify(folder, manifest.below(folder), cold=True)
    if stored.tells_other_times(folder):
        differences = [d for d in differences if not only_times_differ(job, store, folder, d)]
    if differences:
        raise StepFailed(
            f"run {job.run}: {product} in the store differs from its manifest: {describe(differences)}; nothing more "
            f"is dropped. Move it away there, and store it again: snakemake ... "
            f"runs/{job.run}/{product}/{Stored.name} -R move_out"
        )
    return f"{store.where}/{folder}"


def _retire_entry(job: Job) -> None:
    registered = job.state.get(job.run, LIVE, Registered)
    with connect(job.config) as db:
        for entry in registered.entries:
            entries_of(job, db).retire(entry, "released: two other copies")


def _drop(folder: Path) -> None:
    """Take the folder's name away first, so that a kill half-way leaves nothing that looks whole."""
    doomed = folder.parent / incoming_name(folder.name)
    rename_noreplace(folder, doomed)
    fsync_path(folder.parent)
    remove_tree(doomed)


step = Step("release", release)
