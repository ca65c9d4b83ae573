"""The manifest of a product: every file with its size and digest, checkable with standard tools."""

from __future__ import annotations

import time
from pathlib import Path

from straxflow.digests import FileDigest, Manifest, describe, hash_tree
from straxflow.errors import Damaged, StepFailed
from straxflow.fsio import write_atomic
from straxflow.receipts import Checksums, Processed
from straxflow.staged import algorithm_of, not_as_made
from straxflow.steps.job import Job, Step, log


def checksum(job: Job) -> Checksums:
    """Hash a product in staging; its list file is checked there, or in the store, with `xxhsum -c`."""
    began = time.monotonic()
    algorithm = job.config.checksum
    made = job.state.get(job.run, job.product, Processed)
    files: list[FileDigest] = []
    for target in made.targets.values():
        folder = _place(job, target.folder)
        found = hash_tree(folder, algorithm, threads=job.threads)
        as_then = found
        if algorithm_of(target, algorithm) != algorithm:
            as_then = hash_tree(folder, algorithm_of(target), threads=job.threads)
        if odd := not_as_made(target, as_then):
            raise Damaged(f"run {job.run}: {folder}: changed since it was made: {odd}; straxflow retry makes it again")
        files += [FileDigest(f"{target.folder}/{f.path}", f.size, f.digest) for f in found.files]
    manifest = Manifest.from_rows(algorithm, [(f.path, f.size, f.digest) for f in files])
    list_file = job.state.run(job.run) / job.product / f"{algorithm}sums.txt"
    dropped = not (job.config.folders.staging / next(iter(made.targets.values())).folder).is_dir()
    if dropped or made.adopted:
        _compare_with_earlier(manifest, list_file)
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


def _compare_with_earlier(manifest: Manifest, list_file: Path) -> None:
    """A manifest made anew from the store must be the one by which the product was stored."""
    if not list_file.is_file():
        return
    sizes = {file.path: file.size for file in manifest.files}
    try:
        earlier = Manifest.from_list(manifest.algorithm, list_file.read_bytes(), sizes)
    except Damaged as error:
        raise Damaged(f"{list_file}: {error}: files it names are not in the store") from None
    if odd := earlier.differences(manifest.files):
        raise Damaged(f"the store differs from {list_file}: {describe(odd)}; it is not given a new manifest")


step = Step("checksum", checksum)
