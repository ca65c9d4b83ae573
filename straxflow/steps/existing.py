"""Data of a product that are there already: which of them must not be taken for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from straxflow.digests import Manifest, hasher_of
from straxflow.known import known_manifests, unlike_known
from straxflow.receipts import Stored, read
from straxflow.recheck import stale_receipts
from straxflow.steps.job import Job, log


@dataclass(frozen=True)
class Existing:
    """What was found of a product in staging and, if that is mounted here, in the store."""

    places: list[Path]
    """The folders to look into."""
    known: list[Manifest]
    unfit: dict[Path, str] = field(default_factory=dict)
    """Data folders that are no more what was made, and how they differ."""


def look(job: Job) -> Existing:
    """Read what is there and once had a manifest; of what never had one (another tool's) nothing is known."""
    config, run = job.config, job.run
    known = known_manifests(config.folders.state, run, config.targets(job.product))
    existing = Existing([config.folders.staging], known)
    if config.store.ssh is None and not job.from_scratch:
        existing.places.append(config.store.folder)
    lost = {name for file in stale_receipts(job.state, run, job.product, Stored) for name in read(file, Stored).folders}
    mine = tuple(f"{run}-{name}-" for name in config.targets(job.product))
    names = {file.path.partition("/")[0] for manifest in known for file in manifest.files} | lost
    for name in sorted(name for name in names if name.startswith(mine)):
        for folder in (place / name for place in existing.places):
            if not folder.is_dir():
                continue
            why = unlike_known(known, name, hasher_of(folder, job.threads))
            if why is None and name in lost and folder.parent != config.folders.staging and not _named(known, name):
                why = "it was found broken, and there is no manifest of it to tell whether it still is"
            if why:
                existing.unfit[folder] = why
                log.warning("%s is not taken: %s", folder, why)
    return existing


def _named(known: list[Manifest], name: str) -> bool:
    return any(manifest.below(name).files for manifest in known)
