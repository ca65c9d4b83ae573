"""The DAQ with its run documents, as amstrax and straxen find them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from straxflow.lab.daq.plan import RunPlan
from straxflow.lab.daq.writer import RunSummary, write_run

if TYPE_CHECKING:
    from pymongo.collection import Collection


class Daq:
    """Takes runs into `folder`, and keeps their documents in `collection` if there is one.

    `folder` and `host` are what the document's `live` entry says: the path on the DAQ's host.
    """

    def __init__(
        self,
        folder: Path,
        collection: Collection[dict[str, Any]] | None = None,
        host: str = "daq",
        detector: str = "demo",
    ) -> None:
        self.folder = folder.absolute()
        self.collection = collection
        self.host = host
        self.detector = detector

    def take(
        self,
        plan: RunPlan,
        *,
        start: datetime | None = None,
        realtime: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[dict[str, Any], RunSummary]:
        """Take one run; insert its document at the start, add `end` and `rate` when all is written.

        Without `start` and not in real time, the run is dated so that it ends about now: a run that ends
        in the future is never pending. Gives the final document, in UTC-aware times, and the summary.
        """
        if start is None:
            start = datetime.now(UTC) - (timedelta() if realtime else timedelta(seconds=plan.seconds))
        # the database keeps milliseconds: let both clocks agree
        start = start.replace(microsecond=start.microsecond // 1000 * 1000)
        document = run_document(plan, self.folder, self.host, self.detector, start)
        if self.collection is not None:
            # insert_one puts its _id into what it is given
            self.collection.insert_one(dict(document))
        summary = write_run(self.folder, plan, start=start, realtime=realtime, progress=progress)
        rates = summary.rates
        done = {
            "end": summary.end,
            "rate": {
                self.detector: {
                    "avg": round(summary.plain_bytes / 1e6 / plan.seconds, 3),
                    "max": round(max(rates), 3),
                }
            },
        }
        document |= done
        if self.collection is not None:
            self.collection.update_one({"number": plan.number}, {"$set": done})
        return document, summary

    def next_number(self, first: int = 1) -> int:
        """Give the number after the newest run that the database or the folder knows, or `first`."""
        known = [int(p.name) for p in self.folder.glob("[0-9]*") if p.name.isdigit()]
        if self.collection is not None:
            newest = self.collection.find_one({"number": {"$type": "number"}}, sort=[("number", -1)])
            known += [int(newest["number"])] if newest else []
        return max([first - 1, *known]) + 1


def run_document(plan: RunPlan, folder: Path, host: str, detector: str, start: datetime) -> dict[str, Any]:
    """Give the document of a run that has just been started."""
    source = {"background": "none", "calibration": "Cs137", "led": "LED"}[plan.mode]
    return {
        "number": plan.number,
        "start": start,
        "end": None,
        "mode": plan.mode,
        "detectors": [detector],
        "source": {"type": source},
        "user": "daq",
        "daq_config": {
            "strax_output_path": str(folder),
            "processing_threads": dict(plan.processing_threads),
            "strax_chunk_length": plan.chunk_length_s,
            "strax_chunk_overlap": plan.chunk_overlap_s,
            "strax_fragment_payload_bytes": plan.fragment_payload_bytes,
            "compressor": plan.compressor,
            "registers": [],
        },
        "data": [{"type": "live", "host": host, "location": str(folder), "by": "dispatcher", "time": start}],
        "tags": [],
        "comments": [],
    }
