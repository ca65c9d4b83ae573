"""What a bench found: rows to compare, tables that explain, and whether the goal was met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from bench.measure import Series, ratios

Verdict = Literal["met", "MISSED", ""]


@dataclass(frozen=True)
class Table:
    """A table of a report; all cells are text already."""

    title: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Judged:
    """A figure with its goal, both in words, and how it stands."""

    what: str
    figure: str
    goal: str
    verdict: Verdict


@dataclass(frozen=True)
class Result:
    """One bench: what was measured (`setting`), its figures, and tables."""

    name: str
    setting: str
    judged: list[Judged]
    tables: list[Table]
    notes: list[str] = field(default_factory=list)
    measured: str = ""
    """When, and how long that took."""


def judge(what: str, value: float, limit: float | None, unit: str, spread: str = "") -> Judged:
    """A figure against the most that it may be; None: only reported."""
    figure = f"{value:.2f}{unit}{f' ({spread})' if spread else ''}"
    if limit is None:
        return Judged(what, figure, "", "")
    return Judged(what, figure, f"at most {limit:g}{unit}", "met" if value <= limit else "MISSED")


def judge_all(what: str, values: Sequence[float], limit: float | None, unit: str) -> Judged:
    """The median of all repetitions, with their range, as `judge`."""
    spread = f"{min(values):.2f} to {max(values):.2f}, n={len(values)}"
    return judge(what, median(values), limit, unit, spread)


def compare(what: str, case: Series, baseline: Series, limit: float | None, of: str = "wall") -> Judged:
    """Wall clock of a case (or its CPU: `cpu`) by that of its baseline, repetition by repetition."""
    return judge_all(what, ratios(case, baseline, of), limit, "")


def times(title: str, series: list[Series]) -> Table:
    """Wall clock, CPU, and where known peak memory of some cases."""
    columns = ["case", "wall, s: median (range)", "CPU, s: median (range)"]
    rows = [[s.name, s.show(), s.show("cpu")] for s in series]
    if any(s.median("peak_mb") for s in series):
        columns.append("largest process, MB")
        peaks = [f"{s.median('peak_mb'):.0f}" if s.median("peak_mb") else "" for s in series]
        rows = [[*row, peak] for row, peak in zip(rows, peaks, strict=True)]
    return Table(title, columns, rows)


def parts(title: str, measured: list[dict[str, float]]) -> Table:
    """Medians of the parts of something, s, over its repetitions."""
    rows = [[name, f"{median(one[name] for one in measured):.2f}"] for name in measured[0]]
    return Table(title, ["part", "s"], rows)
