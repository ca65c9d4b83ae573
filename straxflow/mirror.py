"""The status mirror: what the main process tells the run database of the work while it goes on.

Snakemake's events are only hints that something may have changed; what is told is read from receipts and attempt
files. It all happens in a thread of its own: the scheduler never waits, and a database that is away costs nothing.
What could not be told is told when the claims end, or by `straxflow sync`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Collection, Sequence

from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from straxflow import claimfile
from straxflow.config import Config
from straxflow.errors import StraxflowError
from straxflow.receipts import State
from straxflow.rundb import history
from straxflow.rundb.client import RunDb, connect
from straxflow.rundb.memory import Look, Memory
from straxflow.runfiles import CachedFiles
from straxflow.sync import at_start

log = logging.getLogger(__name__)

EVERY_S = 1.0
"""A run is written at most so often, and so soon after something happened to it."""
LOOK_AGAIN_S = (1.0, 30.0)
"""A job begins when the batch system says so: its run is looked at again and again, first and at last so often."""
MOST_RUNS = 5000
PAUSE_S = (1.0, 60.0)
"""Pause after the database failed, first and longest."""


class Hints(logging.Handler):
    """Takes from snakemake's job events which runs may have changed; must cost next to nothing."""

    def __init__(self, mirror: Mirror) -> None:
        super().__init__(logging.INFO)
        self._mirror = mirror
        self._runs: dict[int, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Note the run of a job that begins or ends."""
        event = getattr(record, "event", None)
        if event == "job_info":
            job, wildcards = getattr(record, "jobid", None), getattr(record, "wildcards", None)
            run = wildcards.get("run") if isinstance(wildcards, dict) else None
            if isinstance(job, int) and isinstance(run, str):
                self._runs[job] = run
                self._mirror.hint(run, begun=1)
        elif event in ("job_finished", "job_error"):
            # of an error the wildcards are not told, hence the table
            job = getattr(record, "job_id" if event == "job_finished" else "jobid", None)
            if isinstance(job, int) and (known := self._runs.pop(job, None)):
                self._mirror.hint(known, begun=-1)


class Mirror:
    """Tells the run database how the runs of one invocation stand."""

    def __init__(self, config: Config, state: State, campaign: str, batch: str) -> None:
        self.config, self.state, self.campaign, self.batch = config, state, campaign, batch
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._due: dict[str, float] = {}
        self._jobs: dict[str, int] = {}
        self._pause: dict[str, float] = {}
        self._memories: dict[str, Memory] = {}
        self._files = CachedFiles()
        self._thread = threading.Thread(target=self._run, name="straxflow-mirror", daemon=True)
        self.cpu_seconds = 0.0

    def start(self) -> None:
        """Begin to tell."""
        self._thread.start()

    def hint(self, run: str, begun: int) -> None:
        """Something may have changed about a run; `begun` more jobs of it are under way."""
        with self._lock:
            if run not in self._jobs and len(self._jobs) >= MOST_RUNS:
                return
            self._jobs[run] = max(self._jobs.get(run, 0) + begun, 0)
            self._pause[run] = LOOK_AGAIN_S[0]
            # put off so that what happens at once is written at once, but never further by the next hint
            self._due[run] = min(self._due.get(run, float("inf")), time.monotonic() + EVERY_S)
        self._wake.set()

    def stop(self, deadline_s: float = 2) -> None:
        """Tell no more; what is left to tell is told as the claims end."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(deadline_s)

    def _run(self) -> None:
        pause = PAUSE_S[0]
        with contextlib.suppress(StraxflowError), connect(self.config) as db:
            for change in at_start(db, self.config, self.state, self.campaign):
                log.warning("run %s: %s", change.run, change.text)
        while not self._stop.is_set():
            try:
                self._wait()
                with connect(self.config) as db:
                    while not self._stop.is_set():
                        self._tell(db, self._take_due())
                        self.cpu_seconds = time.thread_time()
                        pause = PAUSE_S[0]
                        self._wait()
            except Exception as error:
                # a thread that ends would leave all documents as they are: whatever happens, go on
                if pause == PAUSE_S[0]:
                    log.warning("states are not told to the run database for now: %s", error)
                self._stop.wait(pause)
                pause = min(2 * pause, PAUSE_S[1])

    def _wait(self) -> None:
        """Until a run is due, or a stop."""
        while not self._stop.is_set():
            self._wake.clear()
            with self._lock:
                first = min(self._due.values(), default=None)
            left = None if first is None else first - time.monotonic()
            if left is not None and left <= 0:
                return
            self._wake.wait(left)

    def _take_due(self) -> list[str]:
        moment = time.monotonic()
        with self._lock:
            runs = [run for run, when in self._due.items() if when <= moment]
            for run in runs:
                del self._due[run]
        return runs

    def _again(self, run: str, after_s: float) -> None:
        """Look at a run again, unless a hint asks for it sooner."""
        with self._lock:
            self._due[run] = min(self._due.get(run, float("inf")), time.monotonic() + after_s)

    def _tell(self, db: RunDb, runs: Collection[str]) -> None:
        """Write what changed about these runs, all in one go."""
        looks: dict[str, Look] = {}
        changed = set[str]()
        writes: list[UpdateOne] = []
        try:
            for run in runs:
                memory = self._look_up(run)
                guard = memory.guard(db) if memory else None
                if memory and guard:
                    look = looks[run] = memory.look(self._files)
                    wanted = look.writes(guard)
                    writes += wanted
                    if wanted or look.files:
                        changed.add(run)
            if writes:
                self._write(db, writes)
            if files := [file for look in looks.values() for file in look.files]:
                history.record(db, self.config, self.campaign, files)
        except BaseException:
            for run in runs:
                self._again(run, EVERY_S)
            raise
        for look in looks.values():
            look.was_told()
        for run in runs:
            self._settle(run, run in changed, run in looks and looks[run].restless)

    def _write(self, db: RunDb, writes: Sequence[UpdateOne]) -> None:
        try:
            db.runs.bulk_write(writes, ordered=False)
        except BulkWriteError as error:
            # one malformed document harms only itself; the others were written
            for one in (error.details or {}).get("writeErrors", [])[:3]:
                log.warning("a run document does not take its states: %s", one.get("errmsg"))

    def _settle(self, run: str, changed: bool, restless: bool) -> None:
        """When to look at a run again: soon where jobs are under way, ever later while nothing happens."""
        with self._lock:
            under_way = self._jobs.get(run, 0) > 0
            first, last = LOOK_AGAIN_S
            pause = self._pause[run] = first if changed else min(2 * self._pause.get(run, first), last)
        if under_way or restless:
            self._again(run, pause)

    def _look_up(self, run: str) -> Memory | None:
        """What is remembered of a run; None if it is not (or not yet) ours, or its facts are not written yet."""
        try:
            claim = claimfile.read(self.state, run)
            if claim is None or claim.batch != self.batch:
                return None
            memory = self._memories.get(run)
            if memory is None or memory.claim.token != claim.token:
                mode = self.state.facts(run).mode
                memory = self._memories[run] = Memory(self.config, self.state, self.campaign, claim, mode)
        except (StraxflowError, OSError):
            return None  # the run's own jobs say what is wrong with it
        return memory
