"""Notice that runs of this invocation were taken over: it stood still, or was cut off, for longer than its lease.

Its jobs are fenced and publish nothing, but snakemake itself removes receipts before it starts a job, and by then they
are the new owner's: so nothing more may be started. The claim is looked at before each start, and by a thread that
ends the invocation where nothing starts.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable

from straxflow import claimfile
from straxflow.errors import ClaimLost, StraxflowError
from straxflow.receipts import State

log = logging.getLogger(__name__)

EVERY_S = 0.5
"""After a standstill the first look is due at once."""


class Claims:
    """The claim files of runs, read when they have changed."""

    def __init__(self, state: State, batch: str) -> None:
        self.state, self.batch = state, batch
        self._ours: dict[str, int] = {}

    def taken(self, run: str) -> claimfile.ClaimFile | None:
        """The claim of another invocation than `batch` on a run, if there is one."""
        try:
            written = claimfile.path(self.state, run).stat().st_mtime_ns
            if self._ours.get(run) == written:
                return None
            claim = claimfile.read(self.state, run)
        except (OSError, StraxflowError):
            return None  # the run's own jobs say what is wrong with it
        if claim and claim.batch != self.batch:
            return claim
        self._ours[run] = written
        return None

    def check(self, run: str) -> None:
        """Make sure that no other invocation has taken a run over.

        Raises:
            ClaimLost: with who has.
        """
        if claim := self.taken(run):
            raise ClaimLost(words(claim))


def words(claim: claimfile.ClaimFile) -> str:
    """What has happened to this invocation."""
    return (
        f"run {claim.run} was taken over by invocation {claim.batch} on {claim.owner.get('host')}, since this one was "
        "silent for longer than its lease; it starts nothing more"
    )


class Watchman:
    """Looks at the claim files of the runs that an invocation works on, until `stop`."""

    def __init__(self, state: State, batch: str, runs: Callable[[], Iterable[str]]) -> None:
        self.claims, self.runs = Claims(state, batch), runs
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="straxflow-takeover", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()

    def taken(self) -> claimfile.ClaimFile | None:
        """The claim of another invocation on one of the runs, if there is any."""
        return next(filter(None, map(self.claims.taken, self.runs())), None)

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            claim = self.taken()
            if claim:
                log.error("%s", words(claim))
                # snakemake's way to be asked to end: what runs ends by itself, and finds itself fenced
                os.kill(os.getpid(), signal.SIGTERM)
                return
