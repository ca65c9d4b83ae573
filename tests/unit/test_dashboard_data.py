"""What the status page's data are made of: bars over time, boxes of steps, what summaries in the database say."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from mongomock import MongoClient

from straxflow.config import Config, load
from straxflow.dashboard import monitor
from straxflow.dashboard.cells import Watched, columns, progress
from straxflow.dashboard.throughput import DAYS, HOURS, Ledger
from straxflow.folders import init_folders
from straxflow.lab.history import History
from straxflow.owner import Owner
from straxflow.receipts import Processed, State, now
from straxflow.rundb.client import RunDb

MOMENT = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def history(tmp_path: Path) -> History:
    """A site without runs."""
    settings = {
        "site": "here",
        "folders": {name: str(tmp_path / name) for name in ("state", "live", "staging")},
        "store": {"folder": str(tmp_path / "store")},
        "daq": {"host": "daq", "folder": str(tmp_path)},
        "runs": {"min_run_number": 1},
        "products": {
            "raw_records": {"from": "live"},
            "events": {"from": "raw_records", "modes": {"exclude": ["led"]}},
        },
    }
    config = load(settings)
    state = State(config.folders.state / "online")
    init_folders(config, state)
    return History(config, state, MongoClient(tz_aware=True)["run"]["runs"])


def take(history: History, number: int = 1, mode: str = "background", end: datetime | None = None) -> str:
    run = history.run(number, mode, end or now() - timedelta(hours=3))
    history.facts(run, number)
    return run


def test_bars_tell_what_was_finished_when(history: History) -> None:
    ledger = Ledger(history.config, history.state)
    empty = ledger.read()
    assert (len(empty.hours), len(empty.days)) == (HOURS, DAYS)
    assert sum(bar.runs + bar.stored for bar in empty.hours) == 0
    for number in (1, 2):
        history.chain(take(history, number), now() - timedelta(hours=3))
    history.chain(take(history, 3), now() - timedelta(hours=3), 4)
    told = ledger.read()
    assert told.hours[-1].start <= now() < told.hours[-1].start + timedelta(hours=1)
    assert sum(bar.runs for bar in told.hours) == sum(bar.runs for bar in told.days) == 2
    assert sum(bar.arrived for bar in told.hours) > sum(bar.stored for bar in told.hours) > 0
    assert [bar.start for bar in told.hours] == sorted(bar.start for bar in told.hours)
    # a run that goes on is seen; one that is finished is not read again, a damaged one harms only itself
    history.chain("000003", now() - timedelta(hours=3))
    history.state.path("000001", "events", Processed).with_name("stored.json").write_text("damaged")
    (history.state.run("000009")).mkdir()
    assert sum(bar.runs for bar in ledger.read().hours) == 3
    # what changed last long ago is not looked at
    old = (now() - timedelta(days=DAYS + 1)).timestamp()
    os.utime(history.state.run("000002"), (old, old))
    assert sum(bar.runs for bar in ledger.read().days) == 2


def cells(history: History, run: str, at_work: bool | None = None) -> dict[str, str]:
    return dict(progress(history.config, history.state, run, None, at_work).cells)


def test_boxes_of_a_run(history: History) -> None:
    config = history.config
    assert [(c.product, len(c.steps)) for c in columns(config)] == [
        ("live", 2), ("raw_records", 4), ("events", 4), ("release", 1),
    ]  # fmt: skip
    run = take(history)
    todo = {"live": "..", "raw_records": "....", "events": "....", "release": "."}
    assert cells(history, run) == todo
    at = history.chain(run, now(), 3)
    assert cells(history, run) == todo | {"live": "dd", "raw_records": "d..."}
    history.step(run, "raw_records", "checksum", at, "retry", "the disk is away")
    assert cells(history, run)["raw_records"] == "dw.."
    history.step(run, "raw_records", "checksum", at + timedelta(minutes=9), "failed", "no", "words\nlast words\n")
    stands = progress(config, history.state, run, None, None)
    assert stands.cells["raw_records"] == "df.."
    assert [(t.step, t.reason) for t in stands.troubles] == [("checksum", "no")]
    assert "last words" in stands.troubles[0].tail
    history.step(run, "raw_records", "checksum", at + timedelta(minutes=19), None)
    assert cells(history, run)["raw_records"] == "dr.."
    assert cells(history, run, at_work=True)["raw_records"] == "dr.."
    assert cells(history, run, at_work=False)["raw_records"] == "ds.."
    history.owner = Owner("elsewhere", "boot", 1, 1)
    history.step(run, "raw_records", "checksum", at + timedelta(minutes=29), None)
    assert cells(history, run)["raw_records"] == "dr.."
    led = take(history, 2, "led")
    assert set(cells(history, led)) == {"live", "raw_records", "release"}


def test_a_dead_owner_s_attempt_was_interrupted(history: History) -> None:
    run = take(history)
    here = Owner.current()
    history.owner = Owner(here.host, here.boot, 2**22 + 1, 1)
    history.step(run, "live", "transfer", now(), None)
    assert cells(history, run)["live"] == "s."


def test_damaged_receipts_and_attempts_harm_nothing_else(history: History) -> None:
    run = take(history)
    history.chain(run, now())
    for file in (history.state.run(run) / "events" / "attempts").iterdir():
        file.write_text("{")
    (history.state.run(run) / "live" / "transferred.json").write_text("{}")
    stands = progress(history.config, history.state, run, None, None)
    assert stands.cells["events"] == "dddd"
    assert "not a valid receipt" in (stands.problem or "")
    (history.state.run(run) / "run.json").write_text("")
    assert "not a valid receipt" in (progress(history.config, history.state, run, None, None).problem or "")


def test_only_what_changed_is_read_again(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = {take(history, number): (None, None) for number in (1, 2, 3)}
    watched = Watched(history.config, history.state)
    before = watched.of(runs)
    again = watched.of(runs)
    assert all(again[run] is before[run] for run in runs)
    history.step("000002", "live", "transfer", now())
    changed = watched.of(runs)
    assert changed["000002"].cells["live"] == "d."
    assert changed["000001"] is before["000001"]
    # one that is running is looked at each time: its process may have died
    history.step("000003", "live", "transfer", now(), None)
    running = watched.of(runs)["000003"]
    assert watched.of(runs)["000003"] is not running


def database(config: Config, rows: list[dict[str, Any]]) -> RunDb:
    client: Any = MongoClient(tz_aware=True)
    db = RunDb(client, client["run"]["runs"])
    for row in rows:
        db.ours("summaries").insert_one(row)
    return db


def test_summaries_that_anybody_may_have_written(history: History) -> None:
    good = {"campaign": "online", "product": "events", "number": 1, "run": "000001", "made": MOMENT}
    rows = [
        good | {"values": [{"name": "a", "value": 1.5}], "plot": {"kind": "svg", "data": b"x"}},
        good | {"number": 2, "run": "000002", "values": "no list"},
        good | {"number": 3, "run": {"$ne": 1}, "values": [1, {"name": "n" * 500, "value": float("nan")}], "plot": 7},
        good | {"number": 4, "made": "yesterday", "values": [{"value": ["x" * 5000]}] * 500},
        good | {"number": 5, "campaign": "v5"},
        good | {"product": "unknown"},
    ]
    found = monitor.told(database(history.config, rows), history.config, "online")
    assert [one.product for one in found] == ["events"]
    newest, odd, empty, whole = found[0].runs
    assert (len(newest.values), newest.made) == (1, None)
    assert all(len(str(value)) <= 200 for value in newest.values.values())
    assert list(odd.values.values()) == [None]
    assert (odd.run, odd.plot, empty.values) == ("?", None, {})
    assert (dict(whole.values), whole.plot, whole.made) == ({"a": 1.5}, "svg", MOMENT)
