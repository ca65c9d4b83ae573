"""Snakemake invocations as processes: started in sessions of their own, found again by a later watcher."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from straxflow.batch import BATCH, CAMPAIGN, KEPT, OWNER, Batch, batch_file, new_batch_id
from straxflow.config.load import ROOT
from straxflow.fsio import write_atomic
from straxflow.owner import Owner, this_host
from straxflow.receipts import State, now
from straxflow.rundb.tunnel import PORT
from straxflow.slurm import SLURM
from straxflow.watch.decide import Seen, Word
from straxflow.watch.reading import Reading

log = logging.getLogger(__name__)

SIGNALS: dict[Word, signal.Signals] = {"finish": signal.SIGTERM, "stop": signal.SIGINT, "kill": signal.SIGKILL}
EVENT = re.compile(rb"^(\[\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\]|straxflow:)", re.MULTILINE)
"""What stands before each job that snakemake begins or ends, and before our own words."""
WATCH = "watch"
"""The folder in the state folder for what a later watcher must find."""
NOT_INHERITED = (OWNER, KEPT, SLURM, PORT, "NOTIFY_SOCKET", "PYTHONDONTWRITEBYTECODE")


class Record(BaseModel):
    """watch/{batch}/invocation.json: an invocation that a watcher started, for one that comes after it."""

    model_config = ConfigDict(extra="ignore")

    batch: str
    owner: dict[str, str | int]
    log: str
    started: AwareDatetime = Field(default_factory=now)


@dataclass
class Running:
    """An invocation that has not been seen to end."""

    state: State
    record: Record
    process: subprocess.Popen[bytes] | None = None
    """None if an earlier watcher started it."""
    runs: list[str] | None = None
    """The runs that it claimed; None: it has not claimed yet."""
    newest: int | None = None
    due_run: str | None = None
    """The run for which it was started."""
    told: Word | None = None
    _told_at: float = 0
    _moved_at: float = field(default_factory=time.monotonic)
    _read: int = 0

    @property
    def batch(self) -> str:
        """Its batch."""
        return self.record.batch

    @property
    def owner(self) -> Owner:
        """Its main process."""
        return Owner.from_dict(self.record.owner)

    @property
    def log(self) -> Path:
        """What it says."""
        return self.state.folder / self.record.log

    def look(self) -> None:
        """Look what it has done meanwhile."""
        if self.runs is None:
            with contextlib.suppress(OSError, ValidationError):
                text = (self.state.folder / batch_file(self.batch)).read_text(encoding="utf-8")
                batch = Batch.model_validate_json(text)
                self.runs = [run.run for run in batch.runs]
                self.newest = max((run.number for run in batch.runs), default=None)
        with contextlib.suppress(OSError), self.log.open("rb") as words:
            words.seek(self._read)
            new = words.read()
            self._read += len(new)
            # not by any word: executors log each of their polls, also those of nothing, if told to be verbose
            if EVENT.search(new):
                self.moved()

    def moved(self, ago_s: float = 0) -> None:
        """It is not still: something moved so long ago, or one of its jobs runs."""
        self._moved_at = time.monotonic() - ago_s

    @property
    def seen(self) -> Seen:
        """What a decision needs of it."""
        clock = time.monotonic()
        return Seen(
            batch=self.batch,
            claims=self.runs is None,
            newest=self.newest,
            still_s=clock - self._moved_at,
            told=self.told,
            told_s=clock - self._told_at if self.told else 0,
        )

    def ended(self) -> bool:
        """Whether its main process is gone."""
        if self.process is not None:
            return self.process.poll() is not None
        return self.owner.is_dead()

    @property
    def code(self) -> int | None:
        """How it ended; None if only its own watcher would know."""
        return self.process.returncode if self.process else None

    @property
    def how(self) -> str:
        """How it ended, in words."""
        if self.code is None:
            return "begun by an earlier watcher"
        return f"exit code {self.code}" if self.code >= 0 else signal.Signals(-self.code).name

    def tell(self, word: Word) -> None:
        """Tell it something; `stop` reaches its local jobs too, those that `kill` leaves end when it is taken over."""
        self.told, self._told_at = word, time.monotonic()
        if self.ended():
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            # its process group, which it leads, has the server of its local jobs in it, which passes signals on, and
            # jobs without a server: to finish, they must not hear of it
            (os.kill if word == "finish" else os.killpg)(self.owner.pid, SIGNALS[word])

    def forget(self) -> None:
        """Remove what was kept for a later watcher."""
        shutil.rmtree(folder_of(self.state, self.batch), ignore_errors=True)


def folder_of(state: State, batch: str) -> Path:
    """Where the profile, the configuration and the record of an invocation stand while it runs."""
    return state.folder / WATCH / batch


def command(profile: Path | str) -> list[str]:
    """The command line of an invocation."""
    return [sys.executable, "-m", "snakemake", "--profile", str(profile)]


def start(state: State, reading: Reading, campaign: str, most: int | None = None) -> Running:
    """Start an invocation, which claims so many runs at most.

    Raises:
        OSError: if its files cannot be written or no process be started.
    """
    batch = new_batch_id()
    folder = folder_of(state, batch)
    folder.mkdir(parents=True)
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}"
    environment = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    environment |= {BATCH: batch, CAMPAIGN: campaign, "PATH": path}
    record = Record(batch=batch, owner={}, log=f"logs/batches/{batch}.snakemake.log")
    words = state.folder / record.log
    words.parent.mkdir(parents=True, exist_ok=True)
    with words.open("ab") as output:
        process = subprocess.Popen(
            command(reading.write(folder, most)),
            cwd=workflow_folder(), env=environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    record.owner = Owner.of(process.pid).as_dict()
    try:
        write_atomic(folder / "invocation.json", record.model_dump_json(indent=1).encode())
    except OSError:
        # nobody would look after it
        os.killpg(process.pid, signal.SIGTERM)
        raise
    return Running(state, record, process)


def workflow_folder() -> Path:
    """The folder of the Snakefile: the current one if it has this very workflow in it (a link will do)."""
    here = Path.cwd()
    same = (here / "straxflow").resolve() == ROOT / "straxflow" and (here / "Snakefile").is_file()
    return here if same else ROOT


def found(state: State) -> Iterator[Running]:
    """Invocations on this host that an earlier watcher started and did not see end; dead ones too."""
    for path in sorted((state.folder / WATCH).glob("*/invocation.json")):
        try:
            record = Record.model_validate_json(path.read_text(encoding="utf-8"))
            running = Running(state, record)
            # another user's can neither be told anything nor cleared up
            if running.owner.host == this_host() and path.stat().st_uid == os.getuid():
                yield running
        except (ValidationError, OSError, KeyError, TypeError, ValueError) as error:
            log.warning("%s is not the record of an invocation (%s); it is passed over", path, error)
