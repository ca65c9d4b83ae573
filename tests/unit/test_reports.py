"""What the reading commands tell is told of anything that may stand in documents and logs."""

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mongomock
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from straxflow.cli.output import add, coloured, emit, plain, size, span, table
from straxflow.cli.times import length_s, moment
from straxflow.config import load
from straxflow.errors import UsageError
from straxflow.receipts import State, now
from straxflow.reports.documents import row_of
from straxflow.reports.logs import log_files, tail
from straxflow.reports.runview import words_of
from straxflow.reports.stats import from_database, kind_of
from straxflow.rundb.client import RunDb
from tests.unit.test_config import MINIMAL

CONFIG = load(MINIMAL)
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(), st.text(max_size=5),
    st.datetimes(timezones=st.sampled_from([None, UTC])), st.binary(max_size=3),
)  # fmt: skip
KEYS = [
    "name",
    "user",
    "status",
    "reason",
    "type",
    "host",
    "size_mb",
    "avg",
    "online",
    "claim",
    "owner",
    "batch",
    "due",
]
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)),
    max_leaves=8,
)
FIELDS = [
    "number",
    "name",
    "start",
    "end",
    "mode",
    "detectors",
    "tags",
    "comments",
    "rate",
    "data",
    "processing_status",
]
documents = st.dictionaries(st.sampled_from([*FIELDS, "straxflow", "daq_config", "source"]), values, max_size=12)


@settings(deadline=None)
@given(documents)
def test_any_document_makes_a_row(document: dict[str, Any]) -> None:
    row = row_of({"_id": 1, **document}, CONFIG, "online", MOMENT)
    assert row.state
    assert row.number is None or isinstance(row.number, int)
    assert all(isinstance(tag, str) for tag in row.tags)
    plain(row)
    words_of(document, "tags")
    words_of(document, "comments")


def test_a_run_is_registered_when_every_data_type_of_a_product_is_here() -> None:
    config = load({**MINIMAL, "products": {"raw": {"from": "live", "targets": ["a", "b"]}, "c": {"from": "raw"}}})
    entry = {"host": "here", "type": "a", "size_mb": 5}
    live = {"host": "daq", "type": "live", "size_mb": 30}
    end = MOMENT + timedelta(seconds=10)
    document = {"_id": 1, "number": 7, "start": MOMENT, "end": end, "mode": "bg", "data": [entry, live, {"type": "c"}]}
    row = row_of(document, config, "online", MOMENT)
    assert (row.products, row.bytes, row.rate_mb_s, row.estimated) == ((), 30_000_000, 3.0, False)
    document["data"] = [entry, {**entry, "type": "b"}, {**entry, "type": "c", "campaign": "v5"}]
    document["rate"] = {"xams": {"avg": 2.0}, "odd": "x"}
    row = row_of(document, config, "online", MOMENT)
    assert (row.products, row.bytes, row.rate_mb_s, row.estimated) == (("raw",), 20_000_000, 2.0, True)
    assert row_of(document, config, "v5", MOMENT).products == ("c",)


@settings(deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cc", "Cs"]), max_size=30)),
    st.integers(1, 8),
)
def test_the_last_lines_of_a_log(words: list[str], most: int) -> None:
    with tempfile.NamedTemporaryFile() as file:
        for end in ("\n", ""):
            text = "\n".join(words) + (end if words else "")
            Path(file.name).write_text(text, encoding="utf-8")
            expected = text.split("\n")[: -1 if text.endswith("\n") else None] if text else []
            assert tail(Path(file.name), None) == expected
            assert tail(Path(file.name), most) == expected[-most:]


def test_a_log_larger_than_a_block_is_read_from_its_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {i} {'x' * 50}\n" for i in range(20_000)))
    assert [line.split()[1] for line in tail(log, 3)] == ["19997", "19998", "19999"]
    assert len(tail(log, None)) == 20_000
    assert tail(tmp_path / "none", 3) == []


def test_the_last_attempt_and_what_would_move_the_cursor(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(
        b"x process of raw, run 1, begins (invocation A)\nold\ny process of raw, run 1, begins (invocation B)\n"
        b"\x1b[31mred\x1b[0m \x07bell\tafter\n10%\r50%\r100%\r\nbad \xff byte"
    )
    assert tail(log, 99, last_attempt=True) == [
        "y process of raw, run 1, begins (invocation B)", "red bell\tafter", "100%", "bad \ufffd byte",
    ]  # fmt: skip
    assert tail(log, 1, last_attempt=True) == ["bad \ufffd byte"]


def test_which_logs_there_are(tmp_path: Path) -> None:
    folder = tmp_path / "logs/000001"
    folder.mkdir(parents=True)
    names = [
        "live.transfer.log",
        "raw.process.attempts.log",
        "raw.process.log",
        "release.log",
        "rundoc.log",
        "notes",
        ".x.log",
    ]
    for name in names:
        (folder / name).write_text("x")
    (folder / "link.log").symlink_to("/etc/passwd")
    (folder / "folder.log").mkdir()
    found = {(f.product, f.step): f.path.name for f in log_files(State(tmp_path), "000001")}
    assert found == {
        ("live", "transfer"): "live.transfer.log",
        ("raw", "process"): "raw.process.attempts.log",
        ("live", "release"): "release.log",
        ("live", "rundoc"): "rundoc.log",
    }
    assert [f.step for f in log_files(State(tmp_path), "000001", "raw", "process")] == ["process"]
    assert log_files(State(tmp_path), "000002") == []


def test_times_as_given() -> None:
    assert moment("2026-11-30", "--since") == datetime(2026, 11, 30, tzinfo=UTC)
    assert moment("2026-11-30T14:00+02:00", "--since") == datetime(2026, 11, 30, 12, tzinfo=UTC)
    assert abs(moment("90min", "--since") - now() + timedelta(minutes=90)) < timedelta(seconds=5)
    assert length_s("1.5h", "--x") == 5400
    for wrong in ("soon", "999999w", "2026-13-01", "-1d", ""):
        with pytest.raises(UsageError, match="--since"):
            moment(wrong, "--since")
    with pytest.raises(UsageError, match="--x 5: expected a length of time"):
        length_s("5", "--x")


def test_numbers_with_units() -> None:
    assert [size(n) for n in (0, 1_350_000, 999e6, 2.5e9, 1234e12)] == ["", "1.35 MB", "999 MB", "2.5 GB", "1234 TB"]
    assert [span(s) for s in (None, 1.49, 99, 300, 7200, 864_000)] == ["", "1.49 s", "99 s", "5 min", "2 h", "10 d"]
    assert plain({"a": float("nan"), "b": MOMENT, "c": {1}, "d": Path("/x")}) == {
        "a": None, "b": "2026-01-01T00:00:00+00:00", "c": [1], "d": "/x",
    }  # fmt: skip


@settings(deadline=None)
@given(st.lists(documents, max_size=6), st.sampled_from(["day", "mode", "state"]))
def test_malformed_documents_spoil_no_figures(odd: list[dict[str, Any]], by: Any) -> None:
    runs = mongomock.MongoClient(tz_aware=True)["x"]["runs"]
    end = MOMENT + timedelta(seconds=10)
    live = {"host": "daq", "type": "live", "size_mb": 30}
    made = {"host": "here", "type": "raw_records", "size_mb": 5, "time": end + timedelta(seconds=100)}
    good = {"start": MOMENT, "end": end, "mode": "good", "data": [live, made], "processing_status": {"status": "good"}}
    runs.insert_one({"number": 1, **good})
    runs.insert_many([{**document, "number": 7 + i} for i, document in enumerate(_storable(odd))] or [{"number": 2}])
    found = from_database(RunDb(None, runs), CONFIG, "online", by)  # type: ignore[arg-type]
    key = "2026-01-01" if by == "day" else "good"
    one = next(one for one in found.bins if one.key == key)
    if by != "day":  # others may be of that day
        assert (one.runs, one.seconds, one.live_bytes, one.stored_bytes) == (1, 10, 30e6, 5e6)
        assert one.rate_mb_s == 3
    assert found.latency is not None
    assert found.latency.runs >= 1


def _storable(odd: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without numbers beyond 64 bits, which no database holds."""
    return [{k: v for k, v in document.items() if k != "number"} for document in odd]


def test_latency_is_told_to_a_percent() -> None:
    runs = mongomock.MongoClient(tz_aware=True)["x"]["runs"]
    for i in range(1, 101):
        made = {"host": "here", "type": "raw_records", "time": MOMENT + timedelta(seconds=i * 10)}
        runs.insert_one({"number": i, "start": MOMENT, "end": MOMENT, "mode": "x", "data": [made]})
    found = from_database(RunDb(None, runs), CONFIG, "online", "mode").latency  # type: ignore[arg-type]
    assert found is not None
    assert (found.runs, found.median_s, found.most_s) == (100, pytest.approx(500, 0.02), pytest.approx(900, 0.02))


def test_reasons_of_a_kind_are_counted_together() -> None:
    reasons = [f"transfer of live: run {n}: /data/live/{n}: 12 bytes short (log: logs/{n}/x.log)" for n in (3, 44)]
    assert {kind_of(reason) for reason in reasons} == {"transfer of live: run #: ...: # bytes short"}
    assert kind_of(None) == "no reason was given"


def test_tables_in_a_pipe_are_never_broken_and_play_no_tricks(capsys: pytest.CaptureFixture[str]) -> None:
    made = table("run", ">size", "~why")
    add(made, "000001", 12, "a" * 300)
    add(made, coloured("failed"), None, "\x1b[2Jtwo\nlines \x07[bold]")
    emit(made, "words\x1b[31m [red]")
    assert capsys.readouterr().out.splitlines() == [
        "run     size  why",
        f"000001    12  {'a' * 300}",
        "failed        two lines [bold]",
        "words [red]",
    ]
