"""How much a command touches, and when it asks."""

import argparse
import io
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from straxflow.cli.confirm import ASK_ABOVE, confirm
from straxflow.config import load
from straxflow.errors import StraxflowError, UsageError
from straxflow.extent import Extent, measure
from straxflow.receipts import Processed, State, Target, Transferred, write

CONFIG = load({
    "site": "here",
    "folders": {"state": "s", "live": "l", "staging": "t"},
    "store": {"folder": "st"},
    "daq": {"host": "daq", "folder": "/daq"},
    "runs": {"min_run_number": 0},
    "products": {"raw": {"from": "live"}, "events": {"from": "raw"}},
})  # fmt: skip


def made(state: State, run: str, megabytes: int, cpu_s: float) -> None:
    for product in ("raw", "events"):
        target = Target(folder="f", lineage_hash="h", chunks=1, records=1, bytes=megabytes * 1_000_000, files=1)
        receipt = Processed(
            run=run, product=product, source="live", targets={product: target}, settings="", host="h", seconds=1,
            cpu_seconds=cpu_s, peak_rss_mb=1,
        )  # fmt: skip
        path = state.path(run, product, Processed)
        path.parent.mkdir(parents=True)
        write(path, receipt)


def test_measured_by_receipts_and_scaled(tmp_path: Path) -> None:
    state = State(tmp_path)
    assert str(measure(CONFIG, state, ["a"])) == (
        "1 run; how many bytes and CPU hours is not known: there are no receipts of them"
    )
    made(state, "a", 500, 1800)
    live = Transferred(
        run="a", folder="f", source="s", host="h", algorithm="xxh128", files=[], bytes=10**9, seconds=1,
        made=datetime.now(UTC),
    )  # fmt: skip
    state.path("a", "live", Transferred).parent.mkdir()
    write(state.path("a", "live", Transferred), live)
    assert measure(CONFIG, state, ["a"]) == Extent(1, 2e9, 1.0, 1)
    assert measure(CONFIG, state, ["a"], ["events"]) == Extent(1, 5e8, 0.5, 1)
    found = measure(CONFIG, state, ["a", "b", "c", "d"])
    assert found == Extent(4, 8e9, 4.0, 1)
    assert str(found) == "4 runs, 8.0 GB, 4.0 CPU hours (about, by the receipts of 1 of them)"
    # a receipt that cannot be read tells nothing, and stops nothing
    state.path("a", "raw", Processed).write_text("{")
    assert measure(CONFIG, state, ["a"]).known == 0
    assert measure(CONFIG, state, []) == Extent(0)
    many = measure(CONFIG, state, [f"{n}" for n in range(1000)])
    assert (many.runs, many.known) == (1000, 0)


def options(**given: bool) -> argparse.Namespace:
    return argparse.Namespace(**{"dry_run": False, "yes": False, **given})


def test_asks_for_much_or_for_what_deletes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    few, many = Extent(ASK_ABOVE), Extent(ASK_ABOVE + 1)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    confirm(options(), "tag", few)
    assert capsys.readouterr().err == ""
    with pytest.raises(UsageError, match=r"more than 200 runs.*--yes"):
        confirm(options(), "tag", many)
    with pytest.raises(UsageError, match="deletes"):
        confirm(options(), "drop", few, deletes=True)
    confirm(options(yes=True), "tag", many)
    confirm(options(dry_run=True), "tag", many)
    assert "tag: 201 runs" in capsys.readouterr().err
    for answer, good in (("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("", False)):
        terminal = io.StringIO(answer)
        terminal.isatty = lambda: True  # type: ignore[method-assign]
        monkeypatch.setattr(sys, "stdin", terminal)
        if good:
            confirm(options(), "tag", many)
            continue
        with pytest.raises(StraxflowError, match="nothing was done"):
            confirm(options(), "tag", many)
