"""Register the arrived live data, so that the DAQ's own cleaners see a copy here."""

from __future__ import annotations

from straxflow.config import LIVE
from straxflow.receipts import Registered, Transferred, now
from straxflow.rundb.client import connect
from straxflow.rundb.entries import jsonable
from straxflow.steps.job import Job, Step
from straxflow.steps.register import entries_of


def register_live(job: Job) -> Registered:
    """Write the live data's entry of this host to the run document."""
    received = job.state.get(job.run, LIVE, Transferred)
    entry = {
        "type": "live",
        "host": job.config.site,
        "location": str(job.config.folders.live),
        "by": "straxflow",
        "user": "straxflow",
        "time": now(),
        "protocol": "rsync",
        "status": "transferred",
        "file_count": len(received.files),
        "size_mb": round(received.bytes / 1e6, 3),
        "checksum": {"algorithm": received.algorithm, "files": len(received.files)},
        "meta": {},
        **({"partial": True} if received.made_here is not None else {}),
    }
    with connect(job.config) as db:
        there = entries_of(job, db).add([entry])
    return Registered(run=job.run, product=LIVE, entries=[jsonable(e) for e in there])


step = Step("register_live", register_live)
