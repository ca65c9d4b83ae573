"""Move a product to the store: copy under a hidden name, read back, publish; never over something different."""

from __future__ import annotations

import json
import time
from functools import partial

from straxflow.digests import Difference, Manifest, describe, verify_tree
from straxflow.errors import Damaged
from straxflow.folders import open_store
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
            log.info("%s: the same data are in the store already", target.folder)
        else:
            log.info("%s: stored and read back", target.folder)
    return Stored(
        run=job.run,
        product=job.product,
        site=config.site,
        location=str(config.store.folder),
        folders=[t.folder for t in made.targets.values()],
        bytes=made.bytes,
        seconds=round(time.monotonic() - began, 3),
        adopted=adopted,
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
        here = json.loads((job.config.folders.staging / name / difference.path).read_bytes())
        there = json.loads(store.read_file(name, difference.path))
    except (OSError, ValueError):
        return False
    return not differences(here, there)


step = Step("move_out", move_out)
