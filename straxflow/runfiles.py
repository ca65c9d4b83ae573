"""The files of a run in the state folder, at one glance: when its receipts were written, and its attempts.

For those who look at many runs again and again: a look costs a few folder listings, and each file is parsed once for
each time it was written.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from straxflow.attempts import Attempt, AttemptFile
from straxflow.config import LIVE
from straxflow.errors import StraxflowError
from straxflow.receipts import Processed, State, Transferred

Mark = tuple[int, int]
"""Time (ns) and size of a file: another one means that it was written anew."""


@dataclass(frozen=True)
class RunFiles:
    """Receipts, by path relative to the run's folder, with their time (ns); attempts, oldest first."""

    receipts: dict[str, int]
    attempts: list[AttemptFile]


@dataclass
class CachedFiles:
    """Looks at runs, and remembers what their files said."""

    _attempts: dict[str, dict[str, tuple[Mark, AttemptFile]]] = field(default_factory=dict)
    _sizes: dict[tuple[str, str], tuple[int, float | None]] = field(default_factory=dict)

    def look(self, state: State, run: str) -> RunFiles:
        """The files of a run now; none of a run that has no folder."""
        folder = str(state.run(run))
        receipts: dict[str, int] = {}
        attempts: list[tuple[str, str, Mark]] = []
        for entry in _scan(folder):
            if entry.name.endswith(".json"):
                receipts |= _times("", [entry])
            elif entry.is_dir():
                inside = _scan(entry.path)
                receipts |= _times(f"{entry.name}/", (e for e in inside if e.name.endswith(".json")))
                attempts += _marks(_scan(f"{entry.path}/attempts"))
        return RunFiles(receipts, list(self._parsed(run, sorted(attempts))))

    def attempts(self, state: State, run: str) -> list[AttemptFile]:
        """All attempts of a run, oldest first, as `attempts.all_of`."""
        return self.look(state, run).attempts

    def _parsed(self, run: str, files: Iterable[tuple[str, str, Mark]]) -> Iterator[AttemptFile]:
        known = self._attempts.setdefault(run, {})
        for _, path, mark in files:
            if path not in known or known[path][0] != mark:
                try:
                    text = Path(path).read_text(encoding="utf-8")
                    known[path] = (mark, AttemptFile(Path(path), Attempt.model_validate_json(text)))
                except (ValidationError, OSError):
                    continue  # history, not state; and it may be whole at the next look
            yield known[path][1]

    def size_mb(self, state: State, run: str, product: str, files: RunFiles) -> float | None:
        """Size of what a product (or `live`) holds, MB; None while it is not made."""
        model: type[Transferred | Processed] = Transferred if product == LIVE else Processed
        written = files.receipts.get(f"{product}/{model.name}")
        if written is None:
            return None
        if self._sizes.get((run, product), (0, None))[0] != written:
            try:
                made = state.find(run, product, model)
            except (StraxflowError, OSError):
                made = None
            self._sizes[run, product] = (written, round(made.bytes / 1e6, 3) if made else None)
        return self._sizes[run, product][1]

    def forget(self, run: str) -> None:
        """Drop what is remembered of a run."""
        self._attempts.pop(run, None)
        for key in [key for key in self._sizes if key[0] == run]:
            del self._sizes[key]


def _scan(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError:
        return []


def _times(prefix: str, entries: Iterable[os.DirEntry[str]]) -> dict[str, int]:
    found = {}
    for entry in entries:
        try:
            found[f"{prefix}{entry.name}"] = entry.stat().st_mtime_ns
        except OSError:
            continue  # set aside in this moment
    return found


def _marks(entries: Iterable[os.DirEntry[str]]) -> Iterator[tuple[str, str, Mark]]:
    for entry in entries:
        if entry.name.endswith(".json"):
            try:
                info = entry.stat()
            except OSError:
                continue
            yield entry.name, entry.path, (info.st_mtime_ns, info.st_size)
