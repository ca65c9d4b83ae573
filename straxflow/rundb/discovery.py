"""Runs found in the DAQ's folders, described as a run database would: for sites without one."""

from __future__ import annotations

import logging
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from straxflow import inherited
from straxflow.config import Config
from straxflow.daqfolder import daq_folder
from straxflow.errors import RunDbError, StraxflowError
from straxflow.rundb.daqdisk import Entry, LocalDisk, RemoteDisk
from straxflow.rundb.template import read_backwards
from straxflow.transport.ssh import shared_connection

log = logging.getLogger(__name__)

Document = dict[str, Any]
COMMAND_S = 60
TIMES = ("start", "end")


@dataclass(frozen=True)
class Folder:
    """A run's folder at the DAQ, by its name alone."""

    run: str
    name: str
    top: Path
    number: int
    experiment: str

    def fill(self, template: str) -> str:
        """A template of facts, filled in."""
        return template.format(run=self.run, number=self.number, experiment=self.experiment, folder=self.name)


@dataclass
class Discovery:
    """Looks into the DAQ's folders, not more often than configured; nothing that it finds is written anywhere."""

    config: Config
    problems: list[str] = field(default_factory=list)
    _found: list[Document] = field(default_factory=list)
    _ended: dict[str, Document] = field(default_factory=dict)
    _looked: float | None = None

    def look(self, known: Callable[[object], bool]) -> list[Document]:
        """Documents of the runs whose folders are there, those that are `known` by their id left out."""
        moment = time.monotonic()
        if self._looked is not None and moment - self._looked < self.config.discovery.look_s:
            return self._found
        before, self.problems = self.problems, []
        daq = self.config.daq
        with shared_connection(daq.ssh, daq.ssh_options) as options:
            disk = RemoteDisk(daq.ssh, options) if daq.ssh else LocalDisk()
            self._found = [document for name in self._experiments(disk) for document in self._of(disk, name, known)]
        for problem in self.problems:
            if problem not in before:
                log.warning("%s", problem)
        self._looked = time.monotonic()
        return self._found

    def _experiments(self, disk: LocalDisk | RemoteDisk) -> list[str]:
        names = self.config.experiments
        if not names:
            return [self.config.experiment]
        if names != "ALL" and not any(set("*?[") & set(name) for name in names):
            return list(names)
        try:
            there = disk.match(self.config.daq.folder, "experiment")
        except (StraxflowError, OSError) as error:
            self.problems.append(f"experiments are not looked for: {error}")
            return []
        return [name for name in there if self.config.selects_experiment(name)]

    def _of(self, disk: LocalDisk | RemoteDisk, experiment: str, known: Callable[[object], bool]) -> list[Document]:
        """The runs of an experiment; what hinders is told, and keeps no other from being looked at."""
        top = daq_folder(self.config, experiment)
        found = []
        try:
            named = (self._read_name(name, top, experiment) for name in disk.folders(top))
            wanted = [folder for folder in named if folder and not known(folder.run)]
            new = [folder for folder in wanted if folder.run not in self._ended]
            entries = disk.entries(top, [folder.name for folder in new], self.config.discovery.quiet_s > 0)
            for folder in wanted:
                document = self._ended.get(folder.run) or self._describe(disk, folder, entries[folder.name])
                found.append(document)
                if document["end"] is not None:
                    self._ended[folder.run] = document
        except (StraxflowError, OSError) as error:
            self.problems.append(f"new runs are not looked for: {error}")
        return found

    def _read_name(self, name: str, top: Path, experiment: str) -> Folder | None:
        """What a folder's name tells; None if it is no run's, or one's that is never touched."""
        config = self.config
        known = {"experiment": experiment}
        template = config.daq.run_folder.replace("{run}", config.run_id)
        fields = read_backwards(template, name, known)
        if not fields or not fields.get("number"):
            return None
        number = int(fields["number"][:19])
        values = {"name": None, "mode": config.discovery.mode, **known, **fields, "number": number}
        run = config.run_id.format(**values)
        if config.daq.run_folder.format(run=run, number=number, experiment=experiment) != name:
            return None
        lowest, highest = config.runs.min_run_number, config.runs.max_run_number
        if number < lowest or (highest is not None and number > highest):
            return None
        return Folder(run, name, top, number, experiment)

    def _describe(self, disk: LocalDisk | RemoteDisk, folder: Folder, entries: list[Entry]) -> Document:
        config, how = self.config, self.config.discovery
        end = self._end(entries)
        document: Document = {
            "_id": folder.run,
            "number": folder.number,
            "name": folder.run,
            "experiment": folder.experiment,
            "start": _moment(min((e.changed for e in entries), default=time.time())),
            "end": end,
            "mode": how.mode,
            "detectors": [],
            "tags": [],
            "comments": [],
            "daq_config": {},
            "data": [{"type": "live", "host": config.daq.host, "location": str(folder.top), "by": "DAQ", "time": end}],
            **how.document,
        }
        if end is None:
            return document
        try:
            for facts in self._facts(disk, folder):
                document |= facts
        except (StraxflowError, OSError) as error:
            self.problems.append(f"run {folder.run}: {error}; it is looked at again")
            document["end"] = None
        return document

    def _end(self, entries: list[Entry]) -> datetime | None:
        """When a run ended; None if it has not, as far as is known."""
        how = self.config.discovery
        last = max((e.changed for e in entries if e.is_file), default=None)
        if how.quiet_s and (last is None or time.time() - last < how.quiet_s):
            return None
        if how.ended is None:
            return _moment(last) if last is not None else None
        signs = [e.changed for e in entries if fnmatchcase(e.path, how.ended)]
        return _moment(max(signs)) if signs else None

    def _facts(self, disk: LocalDisk | RemoteDisk, folder: Folder) -> Iterator[Document]:
        how = self.config.discovery
        if how.facts_file:
            file = folder.top / folder.fill(how.facts_file)
            content = disk.read(file)
            if content is None:
                raise RunDbError(f"{file}: the file with its facts is not there yet")
            yield read_facts(content, str(file))
        if how.facts_command:
            words = [
                word.format(
                    run=folder.run, number=folder.number, experiment=folder.experiment, folder=folder.top / folder.name
                )
                for word in shlex.split(how.facts_command)
            ]
            yield read_facts(_output(words, inherited.environment(self.config)), f"what {words[0]} printed")


def read_facts(content: bytes, where: str) -> Document:
    """Facts of a run, from JSON or YAML; their times become dates, what is wrong with others is told when they are
    used.

    Raises:
        RunDbError: if these are no keys and values.
    """
    try:
        facts = yaml.safe_load(content.decode())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RunDbError(f"{where}: {' '.join(str(error).split())}") from None
    if not isinstance(facts, Mapping):
        raise RunDbError(f"{where}: expected keys and values, found {type(facts).__name__}")
    ours = {"_id", "number", "straxflow", "data", "processing_status"} & facts.keys()
    if ours:
        raise RunDbError(f"{where}: {', '.join(sorted(ours))}: not a fact that can be given here")
    return {str(key): _time(value) if key in TIMES else _plain(value) for key, value in facts.items()}


def _time(value: Any) -> Any:
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            value = datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return value
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    return value


def _plain(value: Any) -> Any:
    """As a document can hold it: YAML knows dates without a time."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, date) and not isinstance(value, datetime) else value


def _moment(seconds: float) -> datetime:
    # documents hold milliseconds
    return datetime.fromtimestamp(int(seconds * 1000) / 1000, UTC)


def _output(words: list[str], environment: dict[str, str]) -> bytes:
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, env=environment, timeout=COMMAND_S, check=False
        )
    except OSError as error:
        raise RunDbError(f"discovery.facts_command: cannot run {words[0]!r}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise RunDbError(f"discovery.facts_command: {words[0]} took more than {COMMAND_S} s") from None
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise RunDbError(f"discovery.facts_command: {words[0]}: {last[0]}")
    return done.stdout
