"""Summaries of products for the online monitor: a few figures and a small plot, beside the product's receipts.

A program writes `summary.json`, e.g. {"values": {"events": 1200, "rate (Hz)": 12.5}}, and if it likes a plot,
`plot.svg` or `plot.png`. What it says is read with care, bounded, and never harms the product.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from straxflow.errors import StepFailed
from straxflow.fsio import write_atomic
from straxflow.receipts import Receipt, State, write

MOST_VALUES = 40
LONGEST_NAME = 60
LONGEST_TEXT = 200
MOST_BYTES = 300_000
"""Of a plot, or of summary.json."""
KINDS = {"svg": "image/svg+xml", "png": "image/png"}
PNG = b"\x89PNG\r\n\x1a\n"

Value = float | int | str | bool | None


class Summary(Receipt):
    """summary.json beside a product's receipts: figures by name, and whether there is a plot (plot.svg, plot.png)."""

    name: ClassVar[str] = "summary.json"

    product: str
    values: dict[str, Value]
    plot: str | None = None


def take(state: State, run: str, product: str, written: Path) -> Summary:
    """Bring what a program wrote into a folder to the product's receipts.

    Raises:
        StepFailed: if it is no summary; what was there before is gone then.
    """
    values = read_values(written / Summary.name)
    plot = next((kind for kind in KINDS if (written / f"plot.{kind}").exists()), None)
    picture = read_plot(written / f"plot.{plot}", plot) if plot else None
    folder = state.run(run) / product
    summary = Summary(run=run, product=product, values=values, plot=plot)
    if picture is not None:
        write_atomic(folder / f"plot.{plot}", picture)
    write(folder / Summary.name, summary)
    return summary


def drop(state: State, run: str, product: str) -> None:
    """Forget the summary of a product that is made anew."""
    for name in (Summary.name, *(f"plot.{kind}" for kind in KINDS)):
        (state.run(run) / product / name).unlink(missing_ok=True)


def plot_of(state: State, run: str, product: str, kind: str) -> bytes | None:
    """The plot of a product; None if there is none."""
    try:
        return read_plot(state.run(run) / product / f"plot.{kind}", kind)
    except StepFailed:
        return None


def read_values(path: Path) -> dict[str, Value]:
    """The figures of a summary that a program wrote.

    Raises:
        StepFailed: telling what is wrong with it.
    """
    try:
        content = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise StepFailed(f"{path.name}: not valid JSON: {error}") from None
    values = content.get("values") if isinstance(content, Mapping) else None
    if not isinstance(values, Mapping) or not values:
        raise StepFailed(f'{path.name}: expected {{"values": {{"name": figure, ...}}}}')
    if len(values) > MOST_VALUES:
        raise StepFailed(f"{path.name}: {len(values)} values; at most {MOST_VALUES} are taken")
    return {_name(path, name): _value(path, name, value) for name, value in values.items()}


def read_plot(path: Path, kind: str) -> bytes:
    """A plot that a program wrote.

    Raises:
        StepFailed: if it is too large, or no picture of its kind.
    """
    content = _read(path)
    start = content.lstrip()[:1000]
    if not content.startswith(PNG) if kind == "png" else b"<svg" not in start:
        raise StepFailed(f"{path.name}: not a picture of kind {kind}")
    return content


def _read(path: Path) -> bytes:
    """A plain file, at most so large; a link is not followed, a pipe not waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise StepFailed(f"{path.name}: not a plain file")
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise StepFailed(f"{path.name}: {error.strerror}") from None
    if len(content) > MOST_BYTES:
        raise StepFailed(f"{path.name}: larger than {MOST_BYTES} bytes")
    return content


def _name(path: Path, name: str) -> str:
    if not name.isprintable() or not 0 < len(name) <= LONGEST_NAME:
        raise StepFailed(f"{path.name}: {name[:80]!r} is no name: expected 1 to {LONGEST_NAME} printable characters")
    return name


def _value(path: Path, name: str, value: Any) -> Value:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return value[:LONGEST_TEXT]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    raise StepFailed(f"{path.name}: {name}: expected a number or text, found {type(value).__name__}")
