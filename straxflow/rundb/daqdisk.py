"""What a look at the DAQ's disk tells of runs: their folders, the times in them, small files beside them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from straxflow.errors import RunDbError
from straxflow.transport import ssh

TIMEOUT_S = 60
_WORDS = 60_000
"""Bytes of names in one command line."""


@dataclass(frozen=True)
class Entry:
    """A file or folder in a run's folder: its path from there, and when it changed (s since 1970)."""

    path: str
    changed: float
    is_file: bool


class LocalDisk:
    """The DAQ's disk, mounted here."""

    def match(self, template: Path, name: str) -> list[str]:
        """Values of the placeholder {name} in a path for which there is a folder."""
        base, pattern, _ = _split(template, name)
        found = [str(path) for path in base.glob(pattern) if path.is_dir()] if _must_be(base) else []
        return _values(template, name, found)

    def folders(self, top: Path) -> list[str]:
        """Names of the folders in a folder."""
        with os.scandir(_must_be(top)) as entries:
            return [entry.name for entry in entries if entry.is_dir()]

    def entries(self, top: Path, names: Sequence[str], deep: bool) -> dict[str, list[Entry]]:
        """What is in each of these folders; all the way down, or only at its top."""
        return {name: list(_walk(top / name, "", deep)) for name in names}

    def read(self, file: Path) -> bytes | None:
        """A small file; None if there is none."""
        try:
            return file.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None


class RemoteDisk:
    """The DAQ's disk, on another host with ssh and GNU find."""

    def __init__(self, host: str, options: Sequence[str]) -> None:
        self._host, self._options = host, options

    def match(self, template: Path, name: str) -> list[str]:
        """Values of the placeholder {name} in a path for which there is a folder."""
        base, pattern, depth = _split(template, name)
        words = ["find", str(base), "-mindepth", str(depth), "-maxdepth", str(depth), "-path", str(base / pattern)]
        return _values(template, name, self._lines([*words, "-type", "d", "-printf", r"%p\0"]))

    def folders(self, top: Path) -> list[str]:
        """Names of the folders in a folder."""
        # the slash follows a link
        return self._lines(["find", f"{top}/", "-mindepth", "1", "-maxdepth", "1", "-type", "d", "-printf", r"%f\0"])

    def entries(self, top: Path, names: Sequence[str], deep: bool) -> dict[str, list[Entry]]:
        """What is in each of these folders; all the way down, or only at its top."""
        found: dict[str, list[Entry]] = {name: [] for name in names}
        depth = [] if deep else ["-maxdepth", "1"]
        for some in _portions(names):
            words = ["find", *(str(top / name) for name in some), "-mindepth", "1", *depth]
            for line in self._lines([*words, "-printf", r"%T@ %y %H\t%P\0"]):
                times, kind, path = line.split(" ", 2)
                folder, _, relative = path.partition("\t")
                found[Path(folder).name].append(Entry(relative, float(times), kind == "f"))
        return found

    def read(self, file: Path) -> bytes | None:
        """A small file; None if there is none."""
        result = ssh.run(self._host, self._options, ["cat", str(file)], timeout_s=TIMEOUT_S)
        if result.code and "No such file" not in result.err:
            raise RunDbError(f"{self._host}: {result.err.strip()}")
        return None if result.code else result.out

    def _lines(self, words: Sequence[str]) -> list[str]:
        # in English, so that errors are known
        result = ssh.run(self._host, self._options, ["env", "LC_ALL=C", *words], timeout_s=TIMEOUT_S)
        # a run that is removed meanwhile is no error
        told = [line for line in result.err.splitlines() if "No such file" not in line or words[1] in line]
        if result.code and told:
            raise RunDbError(f"{self._host}: {told[0]}: correct daq.folder, or is that disk mounted?")
        return [os.fsdecode(line) for line in result.out.split(b"\0") if line]


def _must_be(folder: Path) -> Path:
    if not folder.is_dir():
        raise RunDbError(f"{folder}: no such folder: correct daq.folder, or is the DAQ's disk mounted?")
    return folder


def _walk(folder: Path, relative: str, deep: bool) -> Iterator[Entry]:
    try:
        with os.scandir(folder / relative) as entries:
            for entry in entries:
                path = f"{relative}/{entry.name}" if relative else entry.name
                is_file = not entry.is_dir(follow_symlinks=False)
                yield Entry(path, entry.stat(follow_symlinks=False).st_mtime, is_file)
                if deep and not is_file:
                    yield from _walk(folder, path, deep)
    except FileNotFoundError:
        return  # renamed or removed meanwhile: the DAQ is at work


def _split(template: Path, name: str) -> tuple[Path, str, int]:
    """The folder above the first part with the placeholder, the pattern below it, and how deep that goes."""
    parts = template.parts
    first = next(i for i, part in enumerate(parts) if f"{{{name}}}" in part)
    pattern = "/".join(part.replace(f"{{{name}}}", "*") for part in parts[first:])
    return Path(*parts[:first]), pattern, len(parts) - first


def _values(template: Path, name: str, paths: Sequence[str]) -> list[str]:
    first, *others = map(re.escape, str(template).split(f"{{{name}}}"))
    pattern = first + r"([A-Za-z0-9_]+)" + r"\1".join(others)
    return sorted(match[1] for path in paths if (match := re.fullmatch(pattern, path)))


def _portions(names: Sequence[str]) -> Iterator[list[str]]:
    some: list[str] = []
    size = 0
    for name in names:
        if size > _WORDS:
            yield some
            some, size = [], 0
        some.append(name)
        size += len(name) + 200
    if some:
        yield some
