"""The table of faults: each case tells what was broken, what is left and what comes next; the suite writes the page.

A case is a test with the marker `fault`:

    @pytest.mark.fault(group="kill", broken="...", left="...", next="...")

A parametrised one may name its parameters in braces, {id} being that of the case, or carry the marker at each
`pytest.param`. Cases that read the same make one row. `pytest --write-reliability` (make reliability) runs all of
them and no other test, and writes docs/reliability.md at the end.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
WORDS = Path(__file__).with_name("reliability.md")
"""The page but for the tables, written by hand."""

GROUPS = {
    "kill": "kill -9",
    "network": "The network",
    "disks": "Disks",
    "damage": "Damage",
    "two": "Two of everything",
    "time": "Time",
    "rundb": "The run database",
    "config": "Configuration",
    "security": "Security",
    "scale": "Scale",
}
HEAD = "| broken | left | the next plain run | test | outcome |\n|---|---|---|---|---|\n"


@dataclass(frozen=True)
class Case:
    """What a case tells: three sentences, and where its test is."""

    group: str
    broken: str
    left: str
    next: str
    file: str
    test: str


@dataclass
class Row:
    """A row of the page: cases that read the same, with the outcome of each by its id."""

    case: Case
    outcomes: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """The row in Markdown."""
        case = self.case
        link = f"[{case.test.removeprefix('test_').replace('_', ' ')}](../{case.file})"
        return " | ".join([f"| {_cell(case.broken)}", _cell(case.left), _cell(case.next), link, self.outcome()]) + " |"

    def outcome(self) -> str:
        """In a word or two."""
        bad = [outcome for outcome in self.outcomes.values() if outcome != "passed"]
        many = f" ({len(self.outcomes)} cases)" if len(self.outcomes) > 1 else ""
        return (f"**{bad[0]}**" if bad else "passed") + many


def case_of(item: pytest.Item) -> Case | None:
    """What the marker of a test tells; None if it has none."""
    marker = item.get_closest_marker("fault")
    if marker is None:
        return None
    call = getattr(item, "callspec", None)
    values = {"id": call.id, **call.params} if call else {}
    told = {key: str(marker.kwargs[key]).format_map(values) for key in ("broken", "left", "next")}
    if marker.kwargs["group"] not in GROUPS or len(marker.kwargs) != 4:
        raise pytest.UsageError(f"{item.nodeid}: its marker `fault` has group (one of {', '.join(GROUPS)}), {told}")
    file = item.path.relative_to(ROOT).as_posix()
    return Case(marker.kwargs["group"], **told, file=file, test=getattr(item, "originalname", item.name))


def rows_of(cases: Iterable[tuple[str, Case, str]]) -> list[Row]:
    """Rows of (id, case, outcome), in the order of the page."""
    rows: dict[Case, Row] = {}
    for nodeid, case, outcome in cases:
        rows.setdefault(case, Row(case)).outcomes[nodeid] = outcome
    order = list(GROUPS)
    return sorted(rows.values(), key=lambda r: (order.index(r.case.group), r.case.file, min(r.outcomes)))


def page(rows: Iterable[Row], when: str) -> str:
    """The text of docs/reliability.md."""
    tables: dict[str, list[Row]] = {}
    for row in rows:
        tables.setdefault(row.case.group, []).append(row)
    parts = [f"## {GROUPS[g]}\n\n{HEAD}" + "".join(row.text() + "\n" for row in some) for g, some in tables.items()]
    text = WORDS.read_text(encoding="utf-8")
    return text.replace("<!-- when -->", when).replace("<!-- tables -->", "\n".join(parts).rstrip())


def told_rows(text: str) -> list[str]:
    """The rows of cases in a page."""
    lines = (line for line in text.splitlines() if line.count(" | ") == HEAD.count(" | "))
    return [line for line in lines if line.startswith("| ") and "](../tests/" in line]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


class Recorder:
    """Runs the cases alone, and writes the page at the end."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.outcomes: dict[str, str] = {}
        self.cases: dict[str, Case] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        told: Mapping[str, object] = dict(report.user_properties)
        if "fault" not in told:
            return
        self.cases[report.nodeid] = Case(*told["fault"])  # type: ignore[misc]
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.nodeid] = report.outcome

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            return
        minutes = (time.monotonic() - self.began) / 60
        passed = sum(outcome == "passed" for outcome in self.outcomes.values())
        when = f"{len(self.outcomes)} cases, {passed} passed, {datetime.now(UTC):%Y-%m-%d}, in {minutes:.0f} minutes"
        rows = rows_of((nodeid, case, self.outcomes[nodeid]) for nodeid, case in self.cases.items())
        PAGE.write_text(page(rows, when), encoding="utf-8")


# --- as a plugin of pytest ---------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-reliability", action="store_true", help="run all tests with the marker `fault`; write the page of them"
    )


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--write-reliability") or config.option.collectonly or hasattr(config, "workerinput"):
        return
    if config.args_source == pytest.Config.ArgsSource.ARGS or config.option.keyword or config.option.maxfail:
        raise pytest.UsageError("--write-reliability runs all cases to their end: no files, no -k, no -x with it")
    config.pluginmanager.register(Recorder())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    cases = {item: case for item in items if (case := case_of(item))}
    for item, case in cases.items():
        told = (case.group, case.broken, case.left, case.next, case.file, case.test)
        item.user_properties.append(("fault", told))
    if config.getoption("--write-reliability"):
        config.hook.pytest_deselected(items=[item for item in items if item not in cases])
        items[:] = list(cases)
