"""Register a stored product: its `data` entries in the run document, in one atomic write."""

from __future__ import annotations

from pymongo.errors import PyMongoError

from straxflow.errors import StepFailed, StraxflowError
from straxflow.receipts import Checksums, Processed, Registered, Stored, now
from straxflow.rundb import summaries
from straxflow.rundb.client import Document, RunDb, connect
from straxflow.rundb.entries import Entries, jsonable
from straxflow.steps.job import Job, Step, log


def register(job: Job) -> Registered:
    """Write the entries of a product's data types to the run document."""
    wanted = product_entries(job)
    with connect(job.config) as db:
        there = entries_of(job, db).add(wanted)
        _tell_summary(job, db)
    return Registered(run=job.run, product=job.product, entries=[jsonable(e) for e in there])


def _tell_summary(job: Job, db: RunDb) -> None:
    """Give the online monitor the product's summary, if there is one; it is not worth failing for."""
    try:
        summaries.record(db, job.config, job.campaign, job.state, job.state.facts(job.run), job.product)
    except (PyMongoError, StraxflowError, OSError) as error:
        log.warning("the summary of %s is not told to the run database: %s", job.product, error)


def entries_of(job: Job, db: RunDb) -> Entries:
    """The data entries of a job's run, written under its claim."""
    return Entries(db, job.config, job.campaign, job.run, job.fence.batch, job.fence.token)


def product_entries(job: Job) -> list[Document]:
    """The data entries of a product, one a data type and host, with the fields that the field's tools read."""
    made = job.state.get(job.run, job.product, Processed)
    stored = job.state.get(job.run, job.product, Stored)
    sums = job.state.get(job.run, job.product, Checksums)
    partial = job.state.facts(job.run).partial
    folders = [target.folder for target in made.targets.values()]
    if (stored.location, stored.folders) != (str(job.config.store.folder), folders):
        raise StepFailed(
            f"run {job.run}: {Stored.name} of {job.product} says {stored.location}/{', '.join(stored.folders)}, "
            f"expected {job.config.store.folder}/{', '.join(folders)}; remove it and name it as a target"
        )
    return [
        {
            "type": name,
            "host": host,
            "location": f"{stored.location}/{target.folder}",
            "by": "straxflow",
            "user": "straxflow",
            "time": now(),
            "protocol": "FileSytemBackend",
            "status": "transferred",
            "lineage_hash": target.lineage_hash,
            "n_chunks": target.chunks,
            "file_count": target.files,
            "size_mb": round(target.bytes / 1e6, 3),
            "checksum": {
                "algorithm": sums.algorithm,
                "files": target.files,
                "digest": sums.manifest_of(target.folder).fingerprint,
            },
            "meta": {
                "lineage": target.lineage,
                "lineage_hash": target.lineage_hash,
                "n_chunks": target.chunks,
                "versions": made.versions,
            },
            "campaign": job.campaign,
            **({"corrections": made.corrections} if made.corrections else {}),
            **({"partial": True} if partial else {}),
        }
        for host in job.config.store_hosts
        for name, target in made.targets.items()
    ]


step = Step("register", register)
