"""How commands print: tables, numbers with units, JSON."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Iterable
from dataclasses import asdict, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

COLOURS = {
    "done": "green", "reached": "green", "ok": "green", "OK": "green", "working": "cyan", "running": "cyan",
    "waiting": "yellow", "warning": "yellow", "WARNING": "yellow", "held": "yellow",
    "failed": "red", "killed": "red", "misconfigured": "red", "given up": "red", "incomplete": "red",
    "damaged": "bold red", "CRITICAL": "bold red",
}  # fmt: skip


def emit(*parts: RenderableType | str) -> None:
    """Print tables and lines; what is piped into grep or a file is never broken into several lines."""
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else 10_000
    text = io.StringIO()
    console = Console(file=sys.stdout if terminal else text, width=width, highlight=False)
    for part in parts:
        # a plain string is nobody's markup: names and reasons hold brackets
        console.print(Text(part) if isinstance(part, str) else part, soft_wrap=not isinstance(part, Table))
    if not terminal:
        sys.stdout.write("".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines()))


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
    """A table without lines. A column's name begins with > for numbers, with ~ for what may be broken."""
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        name = column.lstrip(">~")
        made.add_column(
            name,
            justify="right" if column.startswith(">") else "left",
            no_wrap=not column.startswith("~"),
            overflow="fold",
        )
    return made


def add(to: Table, *cells: object) -> None:
    """Add a row: words of state are coloured, None is empty."""
    to.add_row(*(c if isinstance(c, Text) else Text("" if c is None else str(c)) for c in cells))


def coloured(state: str) -> Text:
    """A state in its colour."""
    return Text(state, style=COLOURS.get(state, ""))


def size(count: float | None) -> str:
    """Bytes with a unit; empty for none."""
    if not count:
        return ""
    value, unit = next(((count / f, u) for f, u in ((1e12, "TB"), (1e9, "GB")) if count >= f), (count / 1e6, "MB"))
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"


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


def lines(paths: Iterable[Path | str]) -> str:
    """One a line, indented."""
    return "\n".join(f"  {path}" for path in paths)
