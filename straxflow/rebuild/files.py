"""The receipts of one product as files: which are there and valid, and the writing of those that are made anew."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from straxflow.errors import Damaged
from straxflow.rebuild.report import Part
from straxflow.receipts import Receipt, now, read, write

R = TypeVar("R", bound=Receipt)


@dataclass
class Receipts:
    """The receipts in a folder of a run's; `wanted` are those that this site's steps leave.

    In a dry run what is made is remembered, not written.
    """

    folder: Path
    run: str
    part: Part
    wanted: tuple[type[Receipt], ...]
    dry_run: bool
    _made: dict[type[Receipt], Receipt] = field(default_factory=dict)

    def find(self, model: type[R]) -> R | None:
        """A valid receipt that is there, or was just made."""
        made = self._made.get(model)
        if isinstance(made, model):
            return made
        try:
            return read(self.folder / model.name, model, self.run)
        except (FileNotFoundError, Damaged):
            return None

    def lacking(self) -> list[type[Receipt]]:
        """Those that are wanted and not there, or not valid; those that are there are noted as kept."""
        lacking = [model for model in self.wanted if self.find(model) is None]
        self.part.kept = [model.name for model in self.wanted if model not in lacking]
        return lacking

    def make(self, receipt: Receipt) -> bool:
        """Write a receipt that is wanted and lacking; whether it now stands on disk."""
        model = type(receipt)
        if model not in self.wanted or self.find(model):
            return False
        self._made[model] = receipt
        self.part.rebuilt.append(model.name)
        if self.dry_run:
            return False
        path = self.folder / model.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            # not valid, or it would have been kept
            path.rename(path.with_name(f"{path.name}.broken-{now():%Y%m%dT%H%M%S}"))
        write(path, receipt)
        return True

    def problem(self, text: str) -> None:
        """Say what could not be made, and why."""
        self.part.problems.append(text)

    def note(self, text: str) -> None:
        """Say what a person should know."""
        self.part.notes.append(text)
