"""The invocations that a watcher looks after, and what happens when one of them ends, hangs or dies."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from datetime import datetime

from straxflow.errors import StraxflowError
from straxflow.folders import check_folders
from straxflow.orphans import stop_leftovers
from straxflow.receipts import State, now
from straxflow.rundb.client import Document, RunDb
from straxflow.slurm import cancel_jobs
from straxflow.watch import invocations, report
from straxflow.watch.aftermath import give_back
from straxflow.watch.decide import Seen, Stop, Tell
from straxflow.watch.due import Work
from straxflow.watch.hold import Hold
from straxflow.watch.invocations import Running
from straxflow.watch.reading import Reading
from straxflow.watch.stall import at_work
from straxflow.watch.words import Troubles, log

LOOKS = 10
"""How often within `stall_s` a silent invocation is looked at more closely."""
AGAIN_S = 60.0
"""How often a batch system that does not answer is asked again to cancel jobs, s."""


@dataclass
class Crew:
    """The invocations of one campaign on this host."""

    reading: Reading
    campaign: str
    state: State
    troubles: Troubles
    running: list[Running] = field(default_factory=list)
    hold: Hold = field(default_factory=Hold)
    started: int = 0
    failed: int = 0
    hung: int = 0
    claimed: int = 0
    last_claim: datetime | None = None
    _dead: list[Running] = field(default_factory=list)
    _uncancelled: dict[str, float] = field(default_factory=dict)

    def look(self) -> None:
        """Look at all; note those that ended."""
        stall_s = self.reading.config.watch.stall_s
        for one in list(self.running):
            ended = one.ended()
            claims = one.runs is None
            one.look()
            if claims and one.runs:
                self.last_claim = now()
            if ended:
                self._note_end(one)
            elif one.told in (None, "finish") and one.seen.still_s > stall_s and self._works(one):
                one.moved(ago_s=stall_s * (1 - 1 / LOOKS))

    @property
    def seen(self) -> list[Seen]:
        """What a decision needs of them."""
        several = bool(self.reading.config.experiments)
        # numbers of different experiments say nothing of which run is newer
        return [replace(one.seen, newest=None) if several else one.seen for one in self.running]

    def start(self, work: Work) -> None:
        """Start an invocation for what is due; what is in the way is told, and a pause made."""
        try:
            check_folders(self.reading.config, self.state)
            one = invocations.start(self.state, self.reading, self.campaign, work.most)
        except (StraxflowError, OSError) as error:
            self.failed += 1
            pause_s = self.hold.begin()
            self.troubles.there("start", f"no invocation can be started: {error}", f"again in {pause_s:.0f} s")
            return
        one.due_run = work.run
        self.running.append(one)
        self.started += 1
        few = "" if work.most is None else f", for {work.most} that cannot wait"
        log.info("invocation %s begins (pid %d%s): run %s is due", one.batch, one.owner.pid, few, work.run)

    def tell(self, order: Tell, stop: Stop) -> None:
        """Tell an invocation what a decision says."""
        one = next(one for one in self.running if one.batch == order.batch)
        level = logging.INFO if order.word == "finish" else logging.WARNING
        log.log(level, "invocation %s: %s; told to %s", one.batch, order.reason, order.word)
        one.tell(order.word)
        if order.word == "stop" and stop != Stop.NOW:
            self.hung += 1
            report.call_hook(self.reading.config, order.reason, one.batch, str(one.log))

    def stop_all(self) -> None:
        """Ask all to cancel their jobs and end, without a word."""
        for one in self.running:
            if one.told != "kill":
                one.tell("stop")

    def adopt(self) -> None:
        """Take up what earlier watchers on this host left: what lives is looked after, what died is cleared up."""
        known = {one.batch for one in [*self.running, *self._dead]}
        for one in invocations.found(self.state):
            if one.batch in known:
                continue
            if one.ended():
                self._dead.append(one)
            else:
                self.running.append(one)
                log.info("invocation %s (pid %d) of an earlier watcher is looked after", one.batch, one.owner.pid)

    def clear_up(self, db: RunDb) -> None:
        """Stop what ended invocations left behind, and give their runs back."""
        for one in list(self._dead):
            if one.code != 0 and not stop_leftovers(one.batch, one.owner):
                self._uncancelled[one.batch] = time.monotonic()
            given = give_back(db, self.reading.config, self.state, self.campaign, one)
            if given:
                log.warning("invocation %s did not give back: run %s; done for it", one.batch, ", ".join(given))
            one.forget()
            self._dead.remove(one)
        for batch, asked in list(self._uncancelled.items()):
            if time.monotonic() - asked > AGAIN_S:
                self._uncancelled[batch] = time.monotonic()
                if cancel_jobs(batch):
                    del self._uncancelled[batch]

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing is left to be cleared up."""
        return not self.running and not self._dead

    def document(self) -> Document:
        """For those who look at the watcher from outside."""
        return {
            "last_claim": self.last_claim,
            "counts": {name: getattr(self, name) for name in ("started", "failed", "hung", "claimed")},
            "invocations": [
                {
                    "batch": one.batch,
                    "pid": one.owner.pid,
                    "started": one.record.started,
                    "claimed": None if one.runs is None else len(one.runs),
                    "told": one.told,
                }
                for one in self.running
            ],
        }

    def _works(self, one: Running) -> bool:
        return at_work(one, self.reading.slurm, self.reading.config.watch.stall_s)

    def _note_end(self, one: Running) -> None:
        self.running.remove(one)
        self._dead.append(one)
        if one.code:
            self.failed += 1
        if one.runs is None and one.told is None:
            pause_s = self.hold.begin()
            said = f"invocation {one.batch} ended ({one.how}) before it claimed anything"
            self.troubles.there("start", said, f"again in {pause_s:.0f} s; it said:\n{report.tail(one.log)}")
            return
        if one.runs is not None:
            self.troubles.over("start", "invocations claim runs again")
        if one.runs:
            self.hold.end()
            self.claimed += len(one.runs)
        elif one.runs is not None:
            self.hold.begin(one.due_run)
        log.info("invocation %s ended (%s): %s", one.batch, one.how, report.summary(one))
