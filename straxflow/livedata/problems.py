"""What can be wrong with live data, and how it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from straxflow.errors import Damaged

_SHOWN = 15


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong; `path` is relative to the run's folder ('.' is the folder itself)."""

    path: str
    found: str
    expected: str

    def __str__(self) -> str:
        # a name may hold line breaks, or what makes a terminal do things
        path = self.path if self.path.isprintable() else repr(self.path)
        return f"{path}: {self.found}; expected {self.expected}"


class LiveDataDamaged(Damaged):
    """The live data of a run cannot be trusted; `problems` holds everything that was found."""

    def __init__(self, run: str, folder: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        lines = [f"run {run}: the live data in {folder} is damaged ({_count(len(problems), 'problem')}):"]
        lines += [f"  {problem}" for problem in problems[:_SHOWN]]
        if len(problems) > _SHOWN:
            lines.append(f"  ... and {len(problems) - _SHOWN} more")
        lines.append("Compare with the DAQ's own copy, and transfer again if that one is whole.")
        super().__init__("\n".join(lines))


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'' if n == 1 else 's'}"
