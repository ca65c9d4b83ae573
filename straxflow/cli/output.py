"""How commands print: tables, numbers with units, JSON."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import datetime
from typing import Any

from straxflow.reports.logs import CONTROL

COLOURS = {
    "done": "green", "reached": "green", "ok": "green", "OK": "green", "working": "cyan", "running": "cyan",
    "waiting": "yellow", "warning": "yellow", "WARNING": "yellow", "held": "yellow",
    "failed": "red", "killed": "red", "misconfigured": "red", "given up": "red", "incomplete": "red",
    "damaged": "bold red", "CRITICAL": "bold red",
}  # fmt: skip


@dataclass
class Column:
    """A column of a table."""

    name: str
    right: bool = False
    folds: bool = False


@dataclass(frozen=True)
class Cell:
    """A text in its colour."""

    text: str
    style: str = ""


@dataclass
class Table:
    """Rows in columns, without lines."""

    columns: list[Column]
    rows: list[list[Cell]] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """As plain text, one line a row, however long."""
        cells = [[Cell(column.name) for column in self.columns], *self.rows]
        widths = [max(len(row[i].text) for row in cells) for i in range(len(self.columns))]
        for row in cells:
            words = (
                cell.text.rjust(width) if column.right else cell.text.ljust(width)
                for cell, width, column in zip(row, widths, self.columns, strict=True)
            )
            yield "  ".join(words).rstrip()

    def rich(self) -> Any:
        """As rich draws it, with what is too long for the terminal broken."""
        # imported by those who sit at a terminal only
        from rich.table import Table as RichTable
        from rich.text import Text

        made = RichTable(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for column in self.columns:
            justify: Any = "right" if column.right else "left"
            made.add_column(column.name, justify=justify, no_wrap=not column.folds, overflow="fold")
        for row in self.rows:
            made.add_row(*(Text(cell.text, style=cell.style) for cell in row))
        return made


def emit(*parts: Table | str) -> None:
    """Print tables and lines; what is piped into grep or a file is never broken into several lines."""
    if not sys.stdout.isatty():
        for part in parts:
            lines = part.lines() if isinstance(part, Table) else [CONTROL.sub("", part)]
            sys.stdout.writelines(f"{line}\n" for line in lines)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(width=shutil.get_terminal_size().columns, highlight=False)
    for part in parts:
        if isinstance(part, str):
            # nobody's markup: names and reasons hold brackets
            console.print(Text(CONTROL.sub("", part)), soft_wrap=True)
        else:
            console.print(part.rich())


def emit_json(value: object) -> None:
    """Print as JSON: dataclasses as objects, times in ISO format."""
    print(json.dumps(plain(value), indent=1))


def plain(value: Any) -> Any:
    """As JSON can hold it."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float):
        # NaN and infinity are no JSON
        return value if abs(value) < float("inf") else None
    return value if value is None or isinstance(value, (str, int, bool)) else str(value)


def table(*columns: str) -> Table:
    """A table. A column's name begins with > for numbers, with ~ for what may be broken."""
    return Table([Column(name.lstrip(">~"), name.startswith(">"), name.startswith("~")) for name in columns])


def add(to: Table, *cells: object) -> None:
    """Add a row: None is empty."""
    to.rows.append([cell if isinstance(cell, Cell) else Cell(_shown(cell)) for cell in cells])


def _shown(cell: object) -> str:
    return "" if cell is None else CONTROL.sub("", str(cell)).replace("\n", " ")


def coloured(state: str) -> Cell:
    """A state in its colour."""
    return Cell(state, COLOURS.get(state, ""))


def size(count: float | None) -> str:
    """Bytes with a unit; empty for none."""
    if not count:
        return ""
    units = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
    value, unit = next(((count / factor, name) for factor, name in units if count >= factor), (count, "B"))
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"


def times(count: int, one: str, many: str | None = None) -> str:
    """`1 run`, `2 runs`."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def span(seconds: float | None) -> str:
    """A length of time with a unit; empty for none."""
    if seconds is None:
        return ""
    for limit, factor, unit in ((100, 1, "s"), (5400, 60, "min"), (172_800, 3600, "h")):
        if abs(seconds) < limit:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds / 86_400:.3g} d"


def clock(moment: datetime | None) -> str:
    """A time, to the second, UTC; empty for none."""
    return f"{moment:%F %T}" if moment else ""


def one_line(text: str | None) -> str:
    """A text without its line breaks."""
    return " ".join((text or "").split())
