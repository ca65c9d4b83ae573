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
from collections.abc import Collection

from straxflow import claimfile
from straxflow.config import Config
from straxflow.errors import StraxflowError
from straxflow.progress import CachedFiles
from straxflow.receipts import State
from straxflow.rundb import history
from straxflow.rundb.client import RunDb, connect
from straxflow.rundb.memory import Memory
from straxflow.sync import at_start

log = logging.getLogger(__name__)

EVERY_S = 1.0
"""A run is written at most so often, and so soon after something happened to it."""
LOOK_AGAIN_S = 30.0
"""A job begins when the batch system says so: its run is looked at again and again, at last so often."""
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

    def start(self) -> None:
        """Begin to tell."""
        self._thread.start()

    def hint(self, run: str, begun: int) -> None:
        """Something may have changed about a run; `begun` more jobs of it are under way."""
        with self._lock:
            if run not in self._jobs and len(self._jobs) >= MOST_RUNS:
                return
            self._jobs[run] = max(self._jobs.get(run, 0) + begun, 0)
            self._pause[run] = EVERY_S
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
        looks = []
        try:
            for run in runs:
                if memory := self._look_up(run):
                    looks.append((run, memory.look(self._files)))
            writes = [write for _, look in looks for write in look.writes]
            if writes:
                db.runs.bulk_write(writes, ordered=False)
            if files := [file for _, look in looks for file in look.files]:
                history.record(db, self.config, self.campaign, files)
        except BaseException:
            for run in runs:
                self._again(run, EVERY_S)
            raise
        changed = {run: look for run, look in looks if look.writes or look.files}
        restless = {run for run, look in looks if look.restless}
        for _, look in looks:
            look.was_told()
        for run in runs:
            self._settle(run, run in changed, run in restless)

    def _settle(self, run: str, changed: bool, restless: bool) -> None:
        """When to look at a run again: soon where jobs are under way, ever later while nothing happens."""
        with self._lock:
            under_way = self._jobs.get(run, 0) > 0
            pause = self._pause[run] = EVERY_S if changed else min(2 * self._pause.get(run, EVERY_S), LOOK_AGAIN_S)
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
