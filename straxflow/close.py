"""Close a run whose DAQ crashed: find its good chunks on the DAQ's disk, and write its end into its document."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from straxflow.config import LIVE, Config
from straxflow.daqfolder import run_place
from straxflow.errors import StraxflowError
from straxflow.livedata.partial import Found, good_chunks, layout_of
from straxflow.receipts import State, Transferred
from straxflow.rundb.chosen import Chosen
from straxflow.rundb.client import Document
from straxflow.rundb.rundoc import PARTIAL, parse
from straxflow.steps.transfer import expectation
from straxflow.transport.rsync import Place, Rsync

QUIET_PERIODS = 3
LISTING_S = 3600.0


@dataclass(frozen=True)
class Closing:
    """What is known of a run that is to be closed; `end` is that of its last good chunk."""

    run: str
    found: Found
    end: datetime
    has_end: bool

    @property
    def partial(self) -> bool:
        """Whether something has to be left out."""
        return not self.found.whole

    def __str__(self) -> str:
        if not self.partial:
            return f"whole: {self.found.begun} chunks, all readers have signed off; end {self.end:%F %T} UTC"
        return (
            f"{self.found.good} of {self.found.begun} chunks are good, {len(self.found.threads)} threads; "
            f"end {self.end:%F %T} UTC"
        )

    def fields(self, by: str, reason: str, now: datetime) -> Document:
        """What is written to the document."""
        set_: Document = {} if self.has_end else {"end": self.end}
        if self.partial:
            told = {"chunks": self.found.good, "end": self.end, "by": by, "reason": reason, "time": now}
            set_[f"straxflow.{PARTIAL}"] = told
        return set_


def look(config: Config, state: State, campaign: str, run: Chosen, document: Document) -> Closing:
    """Find out what the DAQ's disk has of a run; waits a few chunks' time to see that nothing is written any more.

    Raises:
        StraxflowError: if there is nothing to close: it was closed, it has arrived whole, it is still being written,
            no chunk is good, or its document does not describe it.
    """
    if isinstance(ours := document.get("straxflow"), Mapping) and ours.get(PARTIAL):
        raise StraxflowError(f"run {run.id}: was closed already: {ours[PARTIAL]}")
    if state.path(run.id, LIVE, Transferred).is_file():
        raise StraxflowError(f"run {run.id}: its live data have arrived whole; there is nothing to close")
    facts = parse({**document, "end": document.get("end") or document.get("start")}, config, campaign).facts
    told = expectation(facts)
    period = told.chunk_length_s + told.chunk_overlap_s
    place = run_place(config, facts)
    files = _listing(config, place)
    if not files:
        raise StraxflowError(f"run {run.id}: there is not one file at {place}")
    time.sleep(QUIET_PERIODS * period)
    if _listing(config, place) != files:
        raise StraxflowError(f"run {run.id}: {place} is still being written; stop the DAQ first")
    found = good_chunks(layout_of(files), told.processing_threads)
    chunks = found.begun if found.whole else found.good
    if not chunks:
        raise StraxflowError(
            f"run {run.id}: none of the {found.begun} chunks at {place} is good (each thread must have its three files "
            "in one): there is nothing to take; straxflow tag abandon, if it is to be left alone for good"
        )
    end = facts.start + timedelta(seconds=chunks * period)
    if found.whole:
        # somewhere in the last chunk: its end without the overlap is what all readers cover
        end -= timedelta(seconds=told.chunk_overlap_s)
    return Closing(run.id, found, end, isinstance(document.get("end"), datetime))


def _listing(config: Config, place: Place) -> list[tuple[str, int]]:
    with tempfile.TemporaryDirectory() as empty:
        items = Rsync(place, ["-a"], config.daq.ssh_options).listing(Path(empty), LISTING_S)
    return sorted((item.path, item.size) for item in items)
