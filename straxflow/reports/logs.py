"""The logs of a run's steps: which there are, and their ends; memory does not grow with their size."""

from __future__ import annotations

import os
import re
import stat
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from straxflow.config import LIVE
from straxflow.receipts import State

BEGINS = " begins (invocation "
"""In the line with which each attempt's part of a log begins."""
POLL_S = 0.5
_BLOCK = 1 << 16
_LONGEST = 1 << 20
"""Longer lines are told in pieces: a progress bar may never break its line."""
CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""All but tab and newline: colours and cursor moves, of programs that took a log for a terminal or of people who mean
no good."""


@dataclass(frozen=True)
class LogFile:
    """The log of one step, with all its attempts. `product` is `live` for what concerns the whole run."""

    product: str
    step: str
    path: Path
    changed: datetime
    bytes: int


def log_files(state: State, run: str, product: str | None = None, step: str | None = None) -> list[LogFile]:
    """The logs of a run (of a product, of a step), the one written last at the end."""
    found: dict[tuple[str, str], LogFile] = {}
    folder = state.folder / "logs" / run
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return []
    for entry in entries:
        stem, is_log, _ = entry.name.partition(".log")
        info = entry.stat(follow_symlinks=False)
        if not is_log or entry.name.startswith(".") or not stat.S_ISREG(info.st_mode):
            continue
        whole = stem.endswith(".attempts")
        first, dot, second = stem.removesuffix(".attempts").partition(".")
        key = (first, second) if dot else (LIVE, first)
        # the log that snakemake knows holds the last attempt only
        if whole or key not in found:
            changed = datetime.fromtimestamp(info.st_mtime, UTC)
            found[key] = LogFile(*key, Path(entry.path), changed, info.st_size)
    chosen = (f for f in found.values() if product in (None, f.product) and step in (None, f.step))
    return sorted(chosen, key=lambda file: file.changed)


def tail(path: Path, most: int | None, last_attempt: bool = False) -> list[str]:
    """The last lines of a log (None: all), without what would play tricks on a terminal; none if it is gone.

    With `last_attempt` only those of the last attempt.
    """
    kept: deque[str] = deque()
    try:
        for line in _backwards(path):
            if most is not None and len(kept) >= most:
                break
            kept.appendleft(_plain(line))
            if last_attempt and BEGINS in line:
                break
    except OSError:
        return []
    return list(kept)


def follow(
    state: State, run: str, product: str | None, step: str | None, shown: Sequence[LogFile]
) -> Iterator[tuple[LogFile, list[str]]]:
    """What is written to the logs behind what was `shown` of them, and to new ones; for ever."""
    read = {file.path: (_mark(file.path)[0], file.bytes) for file in shown}
    while True:
        silent = True
        for file in log_files(state, run, product, step):
            inode, size = _mark(file.path)
            known, at = read.get(file.path, (inode, 0))
            at = at if known == inode and at <= size else 0
            data = _read(file.path, at)
            # half a line is told when its end is there
            whole = data.rfind(b"\n") + 1 or (len(data) if len(data) == _BLOCK else 0)
            read[file.path] = inode, at + whole
            if whole:
                silent = False
                text = data[:whole].decode("utf-8", "replace")
                yield file, [_plain(line) for line in text.removesuffix("\n").split("\n")]
        if silent:
            time.sleep(POLL_S)


def _read(path: Path, at: int) -> bytes:
    try:
        with path.open("rb") as words:
            words.seek(at)
            return words.read(_BLOCK)
    except OSError:
        return b""  # set aside or removed meanwhile


def _mark(path: Path) -> tuple[int, int]:
    try:
        info = path.stat()
    except OSError:
        return 0, 0
    return info.st_ino, info.st_size


def _backwards(path: Path) -> Iterator[str]:
    """The lines of a file, the last one first."""
    with path.open("rb") as file:
        place = file.seek(0, os.SEEK_END)
        if place == 0:
            return
        file.seek(place - 1)
        place -= file.read(1) == b"\n"
        rest = b""
        while place > 0:
            count = min(_BLOCK, place)
            place -= count
            file.seek(place)
            rest, *lines = (file.read(count) + rest).split(b"\n")
            for line in reversed(lines):
                yield line.decode("utf-8", "replace")
            if len(rest) > _LONGEST:
                yield rest.decode("utf-8", "replace")
                rest = b""
        yield rest.decode("utf-8", "replace")


def _plain(line: str) -> str:
    # a progress bar writes over its own line
    return CONTROL.sub("", line.rstrip("\r").rpartition("\r")[2])
