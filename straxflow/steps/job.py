"""How a job runs a step: log, attempt file, claim check, receipt, and errors in the user's words."""

from __future__ import annotations

import contextlib
import errno
import logging
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from straxflow import redo
from straxflow.attempts import AttemptFile, Outcome, complete_open, hopeless, outcome_of
from straxflow.batch import campaign_name, ensure_batch_id
from straxflow.claimfile import Fence
from straxflow.config import Config
from straxflow.errors import Cause, StraxflowError, as_text, no_fault
from straxflow.folders import check_folders
from straxflow.memory import reuse_freed
from straxflow.receipts import Receipt, State, write

log = logging.getLogger("straxflow")

SIGNALS = (signal.SIGTERM, signal.SIGINT)
APART_S = 0.5
"""How far apart the signals to the processes of one job may come, seconds: who cancels it sends them one by one."""


@dataclass(frozen=True)
class Job:
    """What a step knows: the run, the product (`live` before any), where things are, and its claim."""

    config: Config
    state: State
    campaign: str
    run: str
    product: str
    fence: Fence
    threads: int
    log_file: Path
    other_staging: tuple[Path, ...] = ()
    """More folders that may hold a source that is not stored yet; only read."""

    @property
    def from_scratch(self) -> bool:
        """Whether data that are there already must not be taken: so configured, or a person wants them made again."""
        return self.config.strax.from_scratch or redo.ordered(self.state, self.run, self.product)


@dataclass(frozen=True)
class Step:
    """A step: its name and its work."""

    name: str
    work: Callable[[Job], Receipt]


class Stopped(BaseException):
    """A signal asks this job to end; not an Exception, so that nothing on the way takes it for a failure."""


@dataclass(frozen=True)
class Call:
    """What Snakemake asks of a job: paths are relative to the state folder, the working folder of all jobs."""

    step: str
    receipt: Path
    log: Path
    run: str
    product: str
    threads: int
    load: Callable[[], Config]


def run_job(call: Call, step: Step) -> None:
    """Run a step; ends the process with 1 if it fails."""
    reuse_freed()
    with log_of_attempts(call.log.absolute()) as log_file:
        _attempt(call, step, log_file, str(call.log.with_name(log_file.name)))


def _attempt(call: Call, step: Step, log_file: Path, log_name: str) -> None:
    campaign = campaign_name()
    batch = ensure_batch_id()
    run, product = call.run, call.product
    attempt: AttemptFile | None = None
    _on_signals(_stop)
    try:
        config = call.load()
        state = State(config.folders.state / campaign)
        check_folders(config, state)
        fence = Fence.enter(state, run, batch)
        # a retry follows at once, while the batch system still knows how the attempt before ended
        complete_open(state, run)
        earlier = hopeless(state, run, product, step.name, batch)
        if earlier:
            log.info("not tried again in this invocation: it ended as '%s' before", earlier.outcome)
            _fail(None, "failed", f"{earlier.reason} (log: {earlier.log}; not tried again in this invocation)", 1)
        # a signal in between would leave an attempt that nobody completes
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        attempt = AttemptFile.start(state, run, product, step.name, batch, log_name)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        log.info("%s of %s, run %s, begins (invocation %s)", step.name, product, run, batch)
        job = Job(config, state, campaign, run, product, fence, call.threads, log_file)
        receipt = _work(step, job)
        fence.check()
        # the work is done: too late to stop between its receipt and its attempt, or on the way out
        _on_signals(signal.SIG_IGN)
        _leave(call.receipt.absolute(), receipt, fence)
    except Stopped as stopped:
        _fail(attempt, "stopped", f"stopped by {stopped} (time limit, cancelled, or interrupted)", 143)
    except StraxflowError as error:
        log.error("%s", error)
        _fail(attempt, outcome_of(error), str(error), 1, getattr(error, "cause", None))
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        told = f"{error.strerror or error}:{where}"
        advice = no_fault(error)
        # a disk that fails is no bug, of which one would want to know the place
        log.error("%s", told if advice or error.errno == errno.EIO else traceback.format_exc())
        if advice:
            _fail(attempt, "retry", f"{told}: {advice}", 1)
        _fail(attempt, "failed", told, 1)
    except Exception as error:
        log.error("%s", traceback.format_exc())
        if isinstance(error, MemoryError):
            _fail(attempt, "failed", f"out of memory: {error}", 1, "out of memory")
        _fail(attempt, "failed", f"{type(error).__name__}: {error} (a bug: see the log)", 1)
    with contextlib.suppress(OSError):
        # the receipt stands: a state disk that is full by now makes no failure of it
        attempt.end("ok", exit_code=0)
    log.info("%s of %s, run %s, is done", step.name, product, run)


def _work(step: Step, job: Job) -> Receipt:
    try:
        return step.work(job)
    except Exception:
        # the program of a job that is being cancelled may end of it before this process hears of it
        time.sleep(APART_S)
        check_stopped()
        raise


def _leave(path: Path, receipt: Receipt, fence: Fence) -> None:
    """Write the receipt; over another one only if that is a copy of this job's, not that of a new owner."""
    try:
        write(path, receipt, new=True)
    except FileExistsError:
        # this process may have stood still for longer than its lease since it looked
        fence.check()
        write(path, receipt)


def _fail(
    attempt: AttemptFile | None, outcome: Outcome, reason: str, code: int, cause: Cause | None = None
) -> NoReturn:
    _on_signals(signal.SIG_IGN)
    reason = as_text(reason)
    say(reason)
    try:
        if attempt:
            attempt.end(outcome, reason, code, cause)
    except OSError as error:
        # a full state disk must not hide the first error; the main process completes the attempt later
        say(f"the attempt file could not be completed: {error}")
    sys.exit(code)


def say(text: str) -> None:
    """Tell the person at snakemake's terminal."""
    print(f"straxflow: {text}", file=sys.stderr, flush=True)


def _on_signals(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for number in SIGNALS:
        signal.signal(number, handler)


_asked_by: list[tuple[str, float]] = []
"""Signals that came, and when."""


def _stop(number: int, frame: FrameType | None) -> None:
    _asked_by.append((signal.Signals(number).name, time.monotonic()))
    # a second one at once, which is usual, must not break off what the first one began: to say so
    if len(_asked_by) == 1 or _asked_by[-1][1] > _asked_by[-2][1] + APART_S:
        check_stopped()


def check_stopped() -> None:
    """For long waits: Python drops an exception that a signal raises while an object is being finalized.

    Raises:
        Stopped: if a signal has asked this job to end.
    """
    if _asked_by:
        raise Stopped(_asked_by[0][0])


@contextmanager
def log_of_attempts(declared: Path) -> Iterator[Path]:
    """Log to a file that keeps all attempts; snakemake removes its declared one before each, which then gets the last.

    Yields:
        the file of all attempts, for programs that a step runs.
    """
    history = declared.with_suffix(f".attempts{declared.suffix}")
    log_to(history)
    began = history.stat().st_size
    try:
        yield history
    finally:
        # what cannot be copied to a full disk must not hide why the step failed
        with contextlib.suppress(OSError), history.open("rb") as words:
            words.seek(began)
            declared.write_bytes(words.read())


def log_to(file: Path) -> None:
    """Append what straxflow logs to a file; what does not go into it is lost, and nothing else."""
    logging.raiseExceptions = False
    file.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(file, mode="a", encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.handlers = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False
