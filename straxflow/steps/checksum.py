"""The manifest of a product: every file with its size and digest, checkable with standard tools."""

from __future__ import annotations

import time

from straxflow.digests import FileDigest, Manifest, hash_tree
from straxflow.errors import Damaged, StepFailed
from straxflow.fsio import write_atomic
from straxflow.receipts import Checksums, Processed
from straxflow.steps.job import Job, Step, log


def checksum(job: Job) -> Checksums:
    """Hash a product in staging; its list file is checked there, or in the store, with `xxhsum -c`."""
    began = time.monotonic()
    algorithm = job.config.checksum
    made = job.state.get(job.run, job.product, Processed)
    files: list[FileDigest] = []
    for target in made.targets.values():
        folder = job.config.folders.staging / target.folder
        if not folder.is_dir():
            raise StepFailed(
                f"run {job.run}: {folder} is not there any more, though {Processed.name} of {job.product} says "
                f"it was made; make it again: snakemake ... -R process runs/{job.run}/{job.product}/{Processed.name}"
            )
        found = hash_tree(folder, algorithm, threads=job.threads)
        if (len(found.files), found.bytes) != (target.files, target.bytes):
            raise Damaged(
                f"{folder}: {len(found.files)} files, {found.bytes} bytes; expected {target.files} files, "
                f"{target.bytes} bytes as when it was made"
            )
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


step = Step("checksum", checksum)
