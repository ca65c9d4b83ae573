"""Ends of logs, found by run, product and attempt; a path never comes from a browser, and no link is followed."""

from __future__ import annotations

import os
import re
import stat
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta
from pathlib import PurePosixPath

from pydantic import ValidationError

from straxflow.attempts import Attempt, folder
from straxflow.receipts import State
from straxflow.reports.logs import BEGINS

MOST = 64_000
"""Of a log, bytes."""
MOST_APART_S = 5
"""Between the start of an attempt and the first line of its log, seconds."""
# all but tab and newline: colours and cursor moves of programs that take the log for a terminal
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def tail(state: State, attempt: Attempt, most: int = MOST) -> str:
    """The end of the log of an attempt's step.

    Raises:
        OSError: if there is none, or it is not a plain file in the logs folder.
    """
    path = PurePosixPath(attempt.log)
    if path.parts[:1] != ("logs",) or ".." in path.parts or len(path.parts) < 2 or "\0" in attempt.log:
        raise FileNotFoundError(f"the attempt names no log in the logs folder: {attempt.log!r}")
    with ExitStack() as opened:
        where = os.open(state.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        opened.callback(os.close, where)
        for part in path.parts[:-1]:
            where = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=where)
            opened.callback(os.close, where)
        # a pipe of that name must not hold the page up
        file = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=where)
        opened.callback(os.close, file)
        info = os.fstat(file)
        if not stat.S_ISREG(info.st_mode):
            raise FileNotFoundError(f"{attempt.log}: not a plain file")
        start = max(0, info.st_size - most)
        words = os.pread(file, most, start).decode("utf-8", "replace").replace("\r\n", "\n")
    if start:
        words = "…" + words.partition("\n")[2]
    return _CONTROL.sub("", _part_of(attempt, words).replace("\r", "\n"))


def _part_of(attempt: Attempt, words: str) -> str:
    """What an attempt itself wrote to the log of all attempts; all of it where that cannot be told."""
    began = attempt.started.astimezone().replace(tzinfo=None)
    starts = []
    for line in re.finditer(rf"^(\S+ \S+),\d+ .*{re.escape(BEGINS)}.*$", words, re.MULTILINE):
        with suppress(ValueError):
            starts.append((abs(datetime.fromisoformat(line[1]) - began), line.start()))
    if not starts or min(starts)[0] > timedelta(seconds=MOST_APART_S):
        return words
    start = min(starts)[1]
    following = [place for _, place in starts if place > start]
    return words[start : min(following, default=None)]


def last_lines(state: State, attempt: Attempt, lines: int) -> str:
    """The last lines of an attempt's log; empty if there is none."""
    try:
        return "\n".join(tail(state, attempt, 4000).rstrip().splitlines()[-lines:])
    except OSError:
        return ""


def find(state: State, run: str, product: str, name: str) -> Attempt | None:
    """An attempt by its name, among those that are there."""
    try:
        for path in folder(state, run, product).iterdir():
            if path.name == f"{name}.json":
                return Attempt.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        pass
    return None
