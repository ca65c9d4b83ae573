"""The manifest of a product: every file with its size and digest, checkable with standard tools."""

from __future__ import annotations

import time
from pathlib import Path

from straxflow.digests import FileDigest, Manifest, hasher_of
from straxflow.errors import Damaged, StepFailed
from straxflow.fsio import write_atomic
from straxflow.known import known_manifests, unlike_known
from straxflow.receipts import Checksums, Processed
from straxflow.staged import algorithm_of, not_as_made
from straxflow.steps.job import Job, Step, log


def checksum(job: Job) -> Checksums:
    """Hash a product in staging; its list file is checked there, or in the store, with `xxhsum -c`."""
    began = time.monotonic()
    algorithm = job.config.checksum
    made = job.state.get(job.run, job.product, Processed)
    files: list[FileDigest] = []
    for name, target in made.targets.items():
        folder = _place(job, target.folder)
        hashed = hasher_of(folder, job.threads)
        found = hashed(algorithm)
        if odd := not_as_made(target, hashed(algorithm_of(target, algorithm))):
            raise Damaged(f"run {job.run}: {folder}: changed since it was made: {odd}; straxflow retry makes it again")
        # what was not made now must be what it was when it was made
        if made.adopted or folder.parent != job.config.folders.staging:
            known = known_manifests(job.config.folders.state, job.run, [name])
            if why := unlike_known(known, target.folder, hashed):
                raise Damaged(f"run {job.run}: {folder} is not what it was: {why}; it is not given a new manifest")
        files += [FileDigest(f"{target.folder}/{f.path}", f.size, f.digest) for f in found.files]
    manifest = Manifest.from_rows(algorithm, [(f.path, f.size, f.digest) for f in files])
    list_file = job.state.run(job.run) / job.product / f"{algorithm}sums.txt"
    write_atomic(list_file, manifest.to_list())
    log.info("%d files, %.1f MB", len(files), manifest.bytes / 1e6)
    return Checksums(
        run=job.run,
        product=job.product,
        algorithm=algorithm,
        files=manifest.rows,
        list_file=list_file.name,
        seconds=round(time.monotonic() - began, 3),
    )


def _place(job: Job, name: str) -> Path:
    """Where a product's folder is: in staging, or, once that copy was dropped, in a store that is mounted here."""
    config = job.config
    staging = config.folders.staging / name
    if staging.is_dir():
        return staging
    if config.store.ssh is None and (config.store.folder / name).is_dir():
        return config.store.folder / name
    raise StepFailed(
        f"run {job.run}: {staging} is not there any more, though {Processed.name} of {job.product} says it was "
        f"made; make it again: snakemake ... runs/{job.run}/{job.product}/{Processed.name} -R process"
    )


step = Step("checksum", checksum)
