"""The watcher: looks, decides, acts, waits; all that it knows can be found again after a kill."""

from __future__ import annotations

import logging
import signal
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime

from straxflow.config import Config
from straxflow.errors import ConfigError, RunDbError, StraxflowError
from straxflow.folders import check_folders
from straxflow.receipts import State, now
from straxflow.rundb.client import Document, RunDb
from straxflow.watch import report
from straxflow.watch.crew import Crew
from straxflow.watch.decide import End, Facts, Start, Stop, decide, room
from straxflow.watch.due import Work, look_for_work
from straxflow.watch.hold import Hold
from straxflow.watch.housekeeping import DAY_S, tidy
from straxflow.watch.lease import Lease, in_words
from straxflow.watch.link import Link
from straxflow.watch.reading import Reading
from straxflow.watch.systemd import tell_systemd
from straxflow.watch.words import Troubles, log, log_to_file

BUG_S = 30.0
"""How long to wait after something that nobody thought of, s."""


@dataclass
class Watcher:
    """Keeps one campaign of a site going until it is told to stop, or (`once`) until nothing is due."""

    reading: Reading
    campaign: str
    once: bool = False
    stop: Stop = Stop.NO
    _due: Work = field(default_factory=Work)
    _link: Link = field(default_factory=Link)
    _wake: threading.Event = field(default_factory=threading.Event)
    _troubles: Troubles = field(default_factory=Troubles)
    _tidier: threading.Thread | None = None
    _tidied: float | None = None
    _renewed: float = 0
    _told: Document = field(default_factory=dict)
    _polled: datetime | None = None
    _file: logging.Handler | None = None
    _away: Hold = field(default_factory=lambda: Hold(first_s=1, longest_s=30))

    def __post_init__(self) -> None:
        self.state = State(self.config.folders.state / self.campaign)
        self.lease = Lease(self.config, self.campaign)
        self.crew = Crew(self.reading, self.campaign, self.state, self._troubles)

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.reading.config

    def run(self) -> int:
        """Watch; the exit code: 1 if it was stopped at once, or (`once`) if an invocation failed."""
        self._on_signals()
        log.info("watching campaign %s of site %s", self.campaign, self.config.site)
        tell_systemd("READY=1")
        while True:
            tell_systemd("WATCHDOG=1")
            self._wake.clear()
            try:
                if self._round():
                    return self._end()
                self._wake.wait(self.config.watch.poll_s)
            except RunDbError:
                raise  # with `once`, nobody waits for a database
            except Exception:
                # whatever it is, what runs goes on; if it is asked to end, a later watcher looks after the rest
                log.exception("a bug: this round came to nothing")
                if self.stop:
                    return 1
                self._wake.wait(BUG_S)

    def _round(self) -> bool:
        """Look and act once; whether there is nothing left to do for ever."""
        for action in decide(self._look(), self.config.watch):
            if isinstance(action, End):
                return True
            if isinstance(action, Start):
                self.crew.start(self._due)
            else:
                self.crew.tell(action, self.stop)
        for text in self._troubles.lasting(self.config.watch.stall_s, ("rundb", "start")):
            report.call_hook(self.config, text)
        return False

    def _look(self) -> Facts:
        self.reading.again()
        self.lease.config = self.config
        self.crew.look()
        due = self._ask_database() if not self._away.keeps() else None
        seen = self.crew.seen
        return Facts(seen, due, self.lease.term is not None, self.stop, self.once)

    def _ask_database(self) -> bool | None:
        """Do all that needs the run database; whether a run is due, as far as it was asked."""
        due = None
        try:
            with self._link.use(self.config) as db:
                self.crew.clear_up(db)
                if self._hold_lease(db) and not self.stop:
                    due = self._ask(db)
            self._away.end()
            self._troubles.over("rundb", "the run database is back")
        except (RunDbError, ConfigError) as error:
            if self.once and self.crew.idle:
                raise
            # a tunnel is opened anew each time: not a login every other second for a whole night
            self._away.begin()
            self._troubles.there("rundb", f"{error}", "asking again")
        return due

    def _ask(self, db: RunDb) -> bool | None:
        """Whether a run is due for which there is room now; None if that was not asked."""
        place = room(self.crew.seen, self.config.watch)
        if place is None:
            return None
        alive = [one.batch for one in self.crew.running]
        self._due = look_for_work(db, self.config, self.campaign, alive, place.newer_than)
        self._polled = now()
        if self._due.held:
            self._troubles.there("held", self._due.held, "nothing is started")
        else:
            self._troubles.over("held", "runs may be claimed again")
        start = self._due.run is not None and self._due.held is None
        return start and not self.crew.hold.keeps(self._due.run)

    def _hold_lease(self, db: RunDb) -> bool:
        """Whether this watcher is the one that acts; tries to become it, or stays it."""
        if self.lease.term is None:
            holder = self.lease.take(db)
            if holder is not None:
                self._troubles.there("lease", f"another watcher acts: {in_words(holder)}", "waiting to take over")
                if self.once:
                    self.stop = Stop.DRAIN
                return False
            self._troubles.over("lease", "this watcher acts now")
            self._open_log()
            self.crew.adopt()
            self._renewed = 0
        self._tidy()
        told = {**self.crew.document(), "draining": self.stop != Stop.NO}
        if told != self._told or time.monotonic() - self._renewed > self.config.watch.lease_s / 3:
            if not self.lease.renew(db, {**told, "polled": self._polled}):
                log.warning("this watcher lost its lease; it starts nothing until it has it again")
                return False
            self._told, self._renewed = told, time.monotonic()
        return True

    def _open_log(self) -> None:
        if self._file is None:
            try:
                check_folders(self.config, self.state)
                self._file = log_to_file(self.state.folder)
            except (StraxflowError, OSError) as error:
                self._troubles.there("log", f"no log file: {error}", "logging to the terminal only")

    def _tidy(self) -> None:
        """Once at the start, then daily, beside everything else: a store may be far away."""
        busy = self._tidier is not None and self._tidier.is_alive()
        if not busy and (self._tidied is None or time.monotonic() - self._tidied > DAY_S):
            self._tidied = time.monotonic()
            alive = [one.batch for one in self.crew.running]
            self._tidier = threading.Thread(
                target=tidy, args=(self.config, self.state, alive), name="straxflow-tidy", daemon=True
            )
            self._tidier.start()

    def _end(self) -> int:
        try:
            with self._link.use(self.config) as db:
                self.crew.clear_up(db)
                self.lease.give_up(db, self.crew.document())
        except (RunDbError, ConfigError) as error:
            log.warning("%s; the lease lapses by itself", error)
        self._link.close()
        log.info("ended")
        return int(self.stop == Stop.NOW or (self.once and self.crew.failed > 0))

    def _on_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._asked)
        signal.signal(signal.SIGCHLD, lambda *_: self._wake.set())

    def _asked(self, number: int, frame: object) -> None:
        if self.stop:
            # at once, though a database that is away may hold up everything else for some seconds
            self.crew.stop_all()
            self.stop = Stop.NOW
        else:
            self.stop = Stop.DRAIN
        self._wake.set()
