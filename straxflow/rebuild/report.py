"""What became of a run whose receipts were made anew."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Part:
    """One product of a run (or `live`, `run`, `release`): names of receipts, and what could not be made and why."""

    name: str
    rebuilt: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class Rebuilt:
    """One run; `missing` are the receipts that it still lacks, relative to the state folder."""

    run: str
    parts: list[Part] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    problem: str | None = None

    @property
    def whole(self) -> bool:
        """Whether all receipts of the run are there (in a dry run: would be)."""
        return not (self.problem or self.missing)

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return {**asdict(self), "whole": self.whole}
