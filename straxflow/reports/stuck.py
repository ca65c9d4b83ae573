"""Runs that do not come on, why, and what to do about each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Literal

from straxflow.config import Config
from straxflow.daqfolder import run_folder
from straxflow.livedata.layout import THE_END
from straxflow.receipts import State
from straxflow.reports.copies import Copies
from straxflow.reports.documents import RunRow
from straxflow.reports.runtable import Choice, from_database
from straxflow.rundb import gate
from straxflow.rundb.client import Document, RunDb
from straxflow.rundb.pending import malformed_numbers
from straxflow.rundb.rundoc import query_for
from straxflow.rundb.whynot import why_none
from straxflow.runlist import RunList

Kind = Literal[
    "malformed", "dead owner", "no progress", "left to a person", "no end", "no THE_END", "waits", "not claimed", "held"
]
KINDS: dict[Kind, str] = {
    "malformed": "its document cannot be used",
    "dead owner": "claimed by an invocation that is dead or silent",
    "no progress": "claimed, but nothing has moved",
    "left to a person": "failed, and never tried again by itself",
    "no end": "it never ended, as far as its document says",
    "no THE_END": "its live data are not complete at the DAQ",
    "waits": "to be tried again later",
    "not claimed": "pending, but nobody works on it",
    "held": "pending, but a tag forbids to work on it",
}
"""What is told, what needs a person first; in words."""
MOST = 2000
"""Runs of a state that are looked at."""
MOST_AT_DAQ = 50
"""Runs that are looked for on the DAQ's disk: each takes an ssh connection."""
MOST_EXPLAINED = 100
"""Runs whose reasons are looked for, all in one query."""
LONGEST = timedelta(hours=24)
"""A run that is being taken for longer has lost its DAQ."""


@dataclass(frozen=True)
class Stuck:
    """A run that does not come on."""

    run: str
    number: int | None
    kind: Kind
    since: datetime | None
    why: str
    remedy: str


@dataclass
class Search:
    """Looks for such runs. `idle`: how long nothing may move before it is told."""

    db: RunDb
    config: Config
    state: State
    campaign: str
    idle: timedelta
    runs: RunList | None = None
    daq: bool = True
    """Whether to look at the DAQ's disk."""
    daq_problem: str | None = field(default=None, init=False)
    """Why the DAQ's disk could not be looked at."""
    _copies: Copies = field(init=False)
    _asked: int = field(default=0, init=False)
    _why: dict[str, list[str]] = field(default_factory=dict, init=False)
    """What forbids to claim a run, as far as it was asked."""

    @cached_property
    def _gate(self) -> gate.Gate:
        return gate.look(self.db, self.config, self.campaign)

    def __post_init__(self) -> None:
        self._copies = Copies(self.config, self.state)
        # where the format is not redax', there is no THE_END
        self.daq = self.daq and self.config.transfer.check and not self.config.experiments

    def find(self) -> Iterator[Stuck]:
        """All of them, by kind."""
        moment = self.db.now()
        yield from self._malformed()
        for state, look in (
            ("pending", self._pending),
            ("working", self._working),
            ("failed", self._failed),
            ("taking", self._taking),
            ("waiting", self._waiting),
            ("new", self._pending),
            ("held", self._held),
        ):
            found = from_database(self.db, self.config, self.campaign, Choice(state, runs=self.runs))
            rows = list(islice(found, MOST))
            if look == self._pending:
                self._explain(row.run for row in rows if row.run and not row.problem and self._idle(row, moment))
            for row in rows:
                if row.problem and state != "taking":
                    yield self._told(row, "malformed", row.end, row.problem, "correct the document")
                else:
                    yield from look(row, moment)

    def _malformed(self) -> Iterator[Stuck]:
        for text in [] if self.runs else malformed_numbers(self.db):
            yield Stuck("", None, "malformed", None, text, "correct or remove the document")
        scope: Document = self.runs.query() if self.runs else {"number": {"$gte": self.config.runs.min_run_number}}
        twice = [
            {"$match": scope},
            {"$group": {"_id": "$number", "documents": {"$sum": 1}}},
            {"$match": {"documents": {"$gt": 1}}},
        ]
        for row in [] if self.config.experiments else islice(self.db.runs.aggregate(twice), MOST):
            why = f"run {row['_id']}: {row['documents']} run documents have this number"
            yield Stuck(str(row["_id"]), row["_id"], "malformed", None, why, "remove the wrong ones")

    def _pending(self, row: RunRow, moment: datetime) -> Iterator[Stuck]:
        if row.claimant:  # or it would be in state `working`
            remedy = "nothing: the next invocation takes it over; is a watcher running (straxflow health)?"
            yield self._told(row, "dead owner", row.claimant.renewed, row.reason or "", remedy)
            return
        since = self._idle(row, moment)
        if since is None:
            return
        if why := self._at_daq(row):
            yield self._told(row, "no THE_END", since, why, f"straxflow close {row.run} --partial --reason ...")
            return
        reasons = self._why.get(row.run, ["not looked at: there are too many of them"])
        why = "; ".join(reasons) or "nothing forbids it"
        yield self._told(row, "not claimed", since, why, "is a watcher running (straxflow health)?")

    def _idle(self, row: RunRow, moment: datetime) -> datetime | None:
        """Since when a run that nobody has claimed waits, if that is too long."""
        since = max((time for time in (row.end, row.since) if time), default=None)
        return since if since and moment - since >= self.idle and not row.claimant else None

    def _explain(self, runs: Iterable[str]) -> None:
        some = list(islice(runs, MOST_EXPLAINED - len(self._why)))
        self._why |= why_none(self.db, self.config, self.campaign, some, self._gate) if some else {}

    def _working(self, row: RunRow, moment: datetime) -> Iterator[Stuck]:
        claimed = row.claimant.claimed if row.claimant else None
        last = max((time for time in (claimed, newest_trace(self.state, row.run)) if time), default=None)
        if row.claimant and last and moment - last >= self.idle:
            why = f"no receipt, attempt or line of a log since then; claimed by {row.claimant}"
            remedy = f"straxflow logs {row.run}; does its job wait in the batch system (squeue --me)?"
            yield self._told(row, "no progress", last, why, remedy)

    def _failed(self, row: RunRow, moment: datetime) -> Iterator[Stuck]:
        if row.due is not None and row.failures < self.config.failures.give_up_after:
            why = f"{row.reason or 'failed'}; failures: {row.failures}, due again {row.due:%F %T}"
            yield self._told(row, "waits", row.since, why, f"nothing, or at once: straxflow retry {row.run}")
        elif row.failures:
            why = f"{row.reason or 'failed'}; failures: {row.failures}"
            remedy = f"mend what the reason says (straxflow logs {row.run}), then straxflow retry {row.run}"
            yield self._told(row, "left to a person", row.since, why, remedy)

    def _taking(self, row: RunRow, moment: datetime) -> Iterator[Stuck]:
        if row.start is None:
            return
        later = self.db.runs.find_one({"number": {"$gt": row.number}, "start": {"$gt": row.start}}, {"number": 1})
        # the newest run is being taken, as long as that is believable
        if moment - row.start < (self.idle if later else LONGEST):
            return
        at_daq = self._at_daq(row, whole="THE_END is there: only the document has no end")
        after = f"run {later['number']} began after it" if later else f"it began {moment - row.start} ago".split(".")[0]
        why = f"{after}; {at_daq or 'the DAQ was not looked at'}"
        yield self._told(row, "no end", row.start, why, f"straxflow close {row.run} [--partial] --reason ...")

    def _waiting(self, row: RunRow, moment: datetime) -> Iterator[Stuck]:
        since = row.end or row.since
        late = since is not None and moment - since >= self.idle
        if late and (at_daq := self._at_daq(row)):
            yield self._told(row, "no THE_END", since, at_daq, f"straxflow close {row.run} --partial --reason ...")
            return
        due = f"; tried again {row.due:%F %T}" if row.due else ""
        yield self._told(row, "waits", row.since, f"{row.reason or 'no reason was given'}{due}", "nothing")

    def _held(self, row: RunRow, moment: datetime) -> Iterator[Stuck]:
        yield self._told(row, "held", row.since, f"tags {', '.join(row.tags)}", f"straxflow untag TAG {row.run}")

    def _at_daq(self, row: RunRow, whole: str | None = None) -> str | None:
        """What is wrong with a run's data at the DAQ (`whole`: what to say if nothing is)."""
        if not self.daq or self._asked >= MOST_AT_DAQ or row.number is None or not row.run:
            return None
        self._asked += 1
        folder = run_folder(self.config, row.run, row.number, query_for(row.run, self.config).get("experiment"))
        there, why = self._copies.at("daq", folder)
        if there == "unknown":
            # not asked again for every run: each would take as long as this one
            self.daq, self.daq_problem = False, why
            return None
        if there == "missing":
            return f"there is nothing of it at the DAQ ({folder})"
        names = self._copies.names("daq", folder)
        if isinstance(names, str):
            return None
        return whole if THE_END in names else f"no {THE_END} at the DAQ: its live data are not complete"

    def _told(self, row: RunRow, kind: Kind, since: datetime | None, why: str, remedy: str) -> Stuck:
        return Stuck(row.run or str(row.number), row.number, kind, since, why, remedy)


def newest_trace(state: State, run: str) -> datetime | None:
    """When something was last written of a run: a receipt, an attempt, a line of a log."""
    files = [path for path in state.run(run).rglob("*.json") if path.name != "claim.json"]
    files += (state.folder / "logs" / run).glob("*.log")
    times = [mtime for path in files if (mtime := _mtime(path))]
    return datetime.fromtimestamp(max(times), UTC) if times else None


def _mtime(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None
