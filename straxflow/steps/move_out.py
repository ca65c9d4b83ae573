"""Move a product to the store: copy under a hidden name, read back, publish; never over something different."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import partial

from straxflow.digests import ALGORITHMS, Difference, FileDigest, Manifest, describe, verify_tree
from straxflow.errors import Damaged
from straxflow.folders import open_store
from straxflow.fsio import write_atomic
from straxflow.receipts import Checksums, Processed, Stored
from straxflow.recheck import broke_in_store
from straxflow.staged import not_as_made
from straxflow.steps.job import Job, Step, log
from straxflow.straxjob.validate import differences
from straxflow.transport.store import Adopted, Store, Tolerate


def move_out(job: Job) -> Stored:
    """Bring each data folder of a product to the store, verified there."""
    began = time.monotonic()
    config = job.config
    made = job.state.get(job.run, job.product, Processed)
    sums = job.state.get(job.run, job.product, Checksums)
    store = open_store(config)
    store.check_marker("store", config.site)
    adopted = []
    in_store: list[FileDigest] = []
    for target in made.targets.values():
        job.fence.check()
        manifest = sums.manifest.below(target.folder)
        if odd := not_as_made(target, manifest):
            raise Damaged(f"run {job.run}: {Checksums.name} of {job.product} is not of what was made: {odd}; remove it")
        tolerate = partial(only_times_differ, job, store, target.folder)
        _make_room(job, store, target.folder, manifest, tolerate)
        outcome = store.put(config.folders.staging / target.folder, target.folder, manifest, tolerate)
        if isinstance(outcome, Adopted):
            adopted.append(target.folder)
            manifest = _as_it_stands(job, store, target.folder, manifest, outcome.differing)
            log.info("%s: the same data are in the store already", target.folder)
        else:
            log.info("%s: stored and read back", target.folder)
        in_store += [FileDigest(f"{target.folder}/{f.path}", f.size, f.digest) for f in manifest.files]
    stands = Manifest(sums.algorithm, tuple(in_store))
    if adopted:
        # the copy in staging will be dropped: the list is for the one that stays
        write_atomic(job.state.run(job.run) / job.product / f"{sums.algorithm}sums.txt", stands.to_list())
    return Stored(
        run=job.run,
        product=job.product,
        site=config.site,
        location=str(config.store.folder),
        folders=[t.folder for t in made.targets.values()],
        bytes=made.bytes,
        seconds=round(time.monotonic() - began, 3),
        adopted=adopted,
        algorithm=stands.algorithm if adopted else None,
        files=stands.rows if adopted else [],
    )


def _make_room(job: Job, store: Store, name: str, manifest: Manifest, tolerate: Tolerate) -> None:
    """Move a copy that broke in the store aside, now that a whole one is here to take its place."""
    if not broke_in_store(job.state, job.run, job.product) or not store.exists(name):
        return
    broken = [d for d in store.verify(name, manifest) if not tolerate(d)]
    if not broken:
        return
    source = job.config.folders.staging / name
    if odd := verify_tree(source, manifest):
        raise Damaged(f"{source}: changed since its manifest was made: {describe(odd)}")
    log.warning("%s/%s broke (%s): now %s", store.where, name, describe(broken), store.set_aside(name))


def only_times_differ(job: Job, store: Store, name: str, difference: Difference) -> bool:
    """Whether a file is strax metadata that differs in write times only: a remade product never matches to the
    letter."""
    if not difference.path.endswith("-metadata.json") or difference.kind not in ("size", "digest"):
        return False
    try:
        return _same_but_for_times(job, name, difference.path, store.read_file(name, difference.path))
    except OSError:
        return False


def _same_but_for_times(job: Job, name: str, path: str, content: bytes) -> bool:
    try:
        return not differences(json.loads((job.config.folders.staging / name / path).read_bytes()), json.loads(content))
    except (OSError, ValueError):
        return False


def _as_it_stands(job: Job, store: Store, name: str, manifest: Manifest, differing: Sequence[str]) -> Manifest:
    """The manifest of an adopted copy, whose metadata tell other times: it must hold once the one here is dropped."""
    files = manifest.by_path
    for path in differing:
        content = store.read_file(name, path)
        if not _same_but_for_times(job, name, path, content):
            raise Damaged(f"{store.where}/{name}/{path}: changed while it was read")
        hasher = ALGORITHMS[manifest.algorithm]()
        hasher.update(content)
        files[path] = FileDigest(path, len(content), hasher.hexdigest())
    return Manifest(manifest.algorithm, tuple(files.values()))


step = Step("move_out", move_out)
