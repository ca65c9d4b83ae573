"""What stands for the run database where there is none: a file of documents, and the runs in the DAQ's folders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

from pymongo.collection import Collection

from straxflow.config import Config
from straxflow.rundb.discovery import Discovery
from straxflow.rundb.filedb import NAME, FileDb

RUNS = "runs"

_opened: dict[Path, FileDb] = {}
_discoveries: dict[Path, Discovery] = {}


def file_of(config: Config) -> Path:
    """Where the documents stand; all campaigns share it."""
    return config.folders.state / NAME


def create(config: Config) -> bool:
    """Make the file of documents, once; whether it was made. One that is missing later stops the work."""
    return FileDb.create(file_of(config))


def open_runs(config: Config) -> Collection[dict[str, Any]]:
    """The run documents; what this process has read of them, or found, is not read or looked for again."""
    file = file_of(config)
    database = _opened.setdefault(file, FileDb(file))
    discovery = discovery_of(config)
    runs = database.get_collection(RUNS)
    runs.look = discovery.look
    return cast("Collection[dict[str, Any]]", runs)


def discovery_of(config: Config) -> Discovery:
    """What looks into the DAQ's folders, in this process."""
    file = file_of(config)
    if file not in _discoveries or _discoveries[file].config != config:
        _discoveries[file] = Discovery(config)
    return _discoveries[file]


def _forget() -> None:
    # locks of threads that are not there any more
    _opened.clear()
    _discoveries.clear()


os.register_at_fork(after_in_child=_forget)
