"""The results on the terminal and as docs/performance.md."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from bench.result import Judged, Result, Table

FINDINGS = Path(__file__).with_name("findings.md")
"""What figures cannot tell: why they are as they are."""
READING = Path(__file__).with_name("reading.md")
"""How to read the page: its words."""
PACKAGES = ("snakemake", "strax", "numpy", "numba", "pymongo", "pydantic", "xxhash")


def verdict_line(results: Sequence[Result]) -> str:
    """Say plainly how many goals were missed."""
    judged = [j for result in results for j in result.judged if j.verdict]
    if not judged:
        return "Nothing here has a goal."
    if not (missed := _missed(judged)):
        return f"All {len(judged)} goals are met."
    return f"{len(missed)} of {len(judged)} goals MISSED:"


def _missed(judged: Iterable[Judged]) -> list[str]:
    return [f"- {j.what}: {j.figure}, the goal is {j.goal}" for j in judged if j.verdict == "MISSED"]


def show(console: Console, result: Result) -> None:
    """Print one bench."""
    console.print(f"\n[bold]{result.name}[/bold]: {result.setting}")
    for table in result.tables:
        console.print(_rich(table))
    for text in (*result.notes, result.measured):
        console.print(text, markup=False)


def conclude(console: Console, results: Sequence[Result]) -> None:
    """Print the figures of all benches, against their goals."""
    judged = [j for result in results for j in result.judged]
    console.print(_rich(_summary(judged)))
    console.print("\n".join([verdict_line(results), *_missed(judged)]), markup=False)


def markdown(results: Sequence[Result], arguments: Sequence[str]) -> str:
    """The text of docs/performance.md."""
    called = " ".join(["python -m bench", *arguments])
    judged = [j for result in results for j in result.judged]
    parts = [
        "# Performance",
        f"Written by `{called}` on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; each section says when it was measured.",
        f"**{verdict_line(results)}**",
        *(["\n".join(missed)] if (missed := _missed(judged)) else []),
        _markdown(_overview(results)),
        READING.read_text(encoding="utf-8").rstrip(),
        "## Machine and versions",
        _markdown(Table("", ["", ""], [[name, value] for name, value in machine()])),
    ]
    for result in results:
        parts += [
            f"## {result.name}",
            f"{result.setting}. {result.measured}".strip(),
            _markdown(_summary(result.judged)),
        ]
        for table in result.tables:
            parts += [f"{table.title}:", _markdown(table)]
        parts += result.notes
    parts.append(FINDINGS.read_text(encoding="utf-8").rstrip())
    return "\n\n".join(parts) + "\n"


def _overview(results: Sequence[Result]) -> Table:
    """A line for each bench: how its goals stand, and its first figure, one with a goal if there is any."""
    rows = []
    for result in results:
        goals = [j.verdict for j in result.judged if j.verdict]
        link = f"[{result.name}](#{result.name.replace(' ', '-').lower()})"
        figures = sorted(result.judged, key=lambda j: not j.verdict)
        first = f"{figures[0].what}: {figures[0].figure}" if figures else "not measured"
        rows.append([link, f"{goals.count('met')} of {len(goals)}" if goals else "none", first])
    return Table("", ["bench", "goals met", "for one"], rows)


def machine() -> list[tuple[str, str]]:
    """What the figures depend on; no names of machines or people."""
    cpu = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    cores = len(re.findall(r"^processor", Path("/proc/cpuinfo").read_text(), re.MULTILINE))
    facts = [
        ("CPU", f"{cores} x {cpu[1] if cpu else platform.machine()}"),
        ("load (1, 5, 15 minutes) at the end", ", ".join(f"{load:.1f}" for load in os.getloadavg())),
        ("memory", f"{int(memory[1]) / 1e6:.0f} GB" if memory else "unknown"),
        ("kernel", platform.release()),
        ("Python", platform.python_version()),
        *((name, version(name)) for name in PACKAGES),
        ("rsync", _first_line("rsync", "--version")),
        ("ssh", _first_line("ssh", "-V")),
    ]
    return facts


def _first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).splitlines()[0].strip()


def _summary(judged: Sequence[Judged]) -> Table:
    rows = [[j.what, j.figure, j.goal, j.verdict] for j in judged]
    return Table("Goals", ["what", "measured", "goal", "verdict"], rows)


def _rich(table: Table) -> RichTable:
    shown = RichTable(title=table.title, title_justify="left", box=box.SIMPLE_HEAD, header_style="bold")
    for i, column in enumerate(table.columns):
        shown.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
    for row in table.rows:
        shown.add_row(*row, style="red" if "MISSED" in row else None)
    return shown


def _markdown(table: Table) -> str:
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)
