"""How products stand by receipts and attempts, and how that is told in documents and kept as history."""

import json
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import mongomock
import pytest
from pydantic import ValidationError

from straxflow.attempts import AttemptFile
from straxflow.config import Config
from straxflow.mirror import Hints
from straxflow.progress import ProductState, product_states
from straxflow.receipts import State, now
from straxflow.rundb import history
from straxflow.rundb.client import RunDb
from straxflow.rundb.filedb import FileDb
from straxflow.rundb.states import details, other_fields
from straxflow.runfiles import CachedFiles
from tests.unit.test_plan import RUN, config

QUICK = {"products": {"raw": {"from": "live"}}}


def begin(state: State, product: str, step: str) -> AttemptFile:
    return AttemptFile.start(state, RUN, product, step, "mine", f"logs/{step}.log")


def receipt(state: State, name: str, content: str = "{}") -> None:
    path = state.run(RUN) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def stands(state: State, some: Config, **more: Any) -> dict[str, tuple[str, str]]:
    found = product_states(some, state, RUN, "background", **more)
    return {name: (one.state, one.step) for name, one in found.items()}


def test_a_product_stands_where_its_receipts_and_attempts_say(tmp_path: Path) -> None:
    state, some = State(tmp_path), config(**QUICK)
    nothing = {"live": ("pending", "transfer"), "raw": ("pending", "process"), "release": ("pending", "release")}
    assert stands(state, some) == nothing
    attempt = begin(state, "live", "transfer")
    assert stands(state, some) == nothing | {"live": ("running", "transfer")}
    attempt.end("retry", "still being written")
    assert stands(state, some)["live"] == ("waiting", "transfer")
    begin(state, "live", "transfer").end("ok")
    receipt(state, "live/transferred.json")
    assert stands(state, some)["live"] == ("pending", "register_live")
    receipt(state, "live/registered.json")
    assert stands(state, some)["live"] == ("done", "register_live")
    begin(state, "raw", "process").end("damaged", "wrong bits")
    assert stands(state, some)["raw"] == ("damaged", "process")
    begin(state, "raw", "process").end("ok")
    for name in ("processed", "checksums", "stored", "registered"):
        receipt(state, f"raw/{name}.json")
    began = now()
    begin(state, "raw", "register").end("failed", "no answer")
    assert stands(state, some)["raw"] == ("done", "register")
    assert stands(state, some, since=began)["raw"] == ("failed", "register")
    assert stands(state, some, since=now())["raw"] == ("done", "register")
    begin(state, "live", "release")
    assert stands(state, some)["live"] == ("done", "register_live")
    assert stands(state, some)["release"] == ("running", "release")


def test_an_attempt_of_a_dead_process_is_not_running(tmp_path: Path) -> None:
    state, some = State(tmp_path), config(**QUICK)
    file = begin(state, "raw", "process")
    content = json.loads(file.path.read_text())
    content["owner"]["start"] -= 1
    file.path.write_text(json.dumps(content))
    assert stands(state, some)["raw"] == ("pending", "process")


def test_files_are_read_again_only_when_they_were_written(tmp_path: Path) -> None:
    state, files = State(tmp_path), CachedFiles()
    one, two = begin(state, "raw", "process"), begin(state, "raw", "process")
    first = files.attempts(state, RUN)
    (tmp_path / "runs" / RUN / "raw" / "attempts" / "0-odd.json").write_text("{")
    two.end("ok")
    second = files.attempts(state, RUN)
    assert [f.path for f in second] == [one.path, two.path]
    assert second[0] is first[0]
    assert second[1].attempt.outcome == "ok"
    files.forget(RUN)
    assert files.attempts(state, RUN)[0] is not first[0]
    assert files.look(state, "nobody").receipts == {}


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({}, {"products.raw.state", "products.raw.step", "products.raw.size_mb", "release.state"}),
        ({"products": {"raw": {"state": "running", "mine": 1}}}, {"products.raw.state", "release.state"}),
        ({"products": "odd", "release": 3}, {"products", "release"}),
        ({"products": {"raw": None}, "release": None}, {"products.raw", "release"}),
        ({"products": {"raw": [1]}}, {"products.raw", "release.state"}),
    ],
)
def test_a_document_is_told_what_it_does_not_say(part: Any, expected: set[str]) -> None:
    states = {"raw": ProductState("done", "register", now(), size_mb=1.5), "release": ProductState("done", "release")}
    told = details("online", states, part)
    assert expected <= {name.removeprefix("straxflow.online.") for name in told}
    assert not any(name.startswith("straxflow.online.products.raw.mine") for name in told)
    document: dict[str, Any] = {"_id": 1, "straxflow": {"online": part}}
    runs = mongomock.MongoClient(tz_aware=True)["x"]["runs"]
    runs.insert_one(document)
    runs.update_one({"_id": 1}, {"$set": told})
    after = runs.find_one({"_id": 1})["straxflow"]["online"]
    assert details("online", states, after) == {}
    assert after["products"]["raw"]["state"] == "done"


def test_fields_of_other_tools() -> None:
    fields = {
        "raw_status": {"from": "live", "values": {"running": "transferring", "done": "ondeck"}},
        "old.status": {"values": {"submitted": "queueing", "failed": "error"}},
    }
    some = config(states={"fields": fields})
    live = {"live": ProductState("running", "transfer")}
    assert other_fields(some, "online", "submitted", live) == {"raw_status": "transferring", "old.status": "queueing"}
    assert other_fields(some, "online", "done", {"live": ProductState("waiting", "transfer")}) == {}
    assert other_fields(some, "v5", "submitted", live) == {}
    assert other_fields(config(states={"fields": fields}, shadow={"enabled": True}), "online", "failed", live) == {}
    for wrong in ("data", "processing_status.status", "straxflow.x", "tags"):
        with pytest.raises(ValidationError, match="means something else"):
            config(states={"fields": {wrong: {"values": {"done": "x"}}}})
    with pytest.raises(ValidationError, match=r"states\.fields\.x\.from: unknown product 'nosuch'"):
        config(states={"fields": {"x": {"from": "nosuch", "values": {"done": "x"}}}})


def test_history_is_bounded_and_written_once(tmp_path: Path) -> None:
    state, some = State(tmp_path), config(**QUICK, history={"per_run": 3, "days": 10})
    files = []
    for day in range(12, 0, -1):
        file = begin(state, "raw", "process")
        begun = now() - timedelta(days=day)
        file.path.unlink()
        file.path = file.path.with_name(f"{begun:%Y%m%dT%H%M%S%f}-process.json")
        file.attempt = file.attempt.model_copy(update={"started": begun})
        file.end("ok")
        files.append(file)
    FileDb.create(tmp_path / "runs.db")
    db = RunDb(None, cast(Any, FileDb(tmp_path / "runs.db").get_collection("runs")))
    some_wide = config(**QUICK)
    assert len(history.news(db, some_wide, "online", RUN, files)) == 12
    assert history.record(db, some_wide, "online", files) == history.record(db, some_wide, "online", files) == 12
    assert history.news(db, some_wide, "online", RUN, files) == []
    assert len(history.history_of(db, "online", RUN)) == 12
    assert history.history_of(db, "v5", RUN) == []
    assert history.prune(db, some, "online", [RUN]) == 9
    kept = history.history_of(db, "online", RUN)
    assert [a.started for a in kept] == sorted(a.started for a in kept)
    assert {a.started.date() for a in kept} == {f.attempt.started.date() for f in files[-3:]}
    assert history.record(db, some, "online", files) == 3
    db.ours(history.COLLECTION).insert_one({"campaign": "online", "run": RUN, "started": now(), "odd": 1})
    assert len(history.history_of(db, "online", RUN)) == 3
    assert [a.step for a in history.recent(db, "online", {"outcome": "ok"}, limit=2)] == ["process", "process"]


def test_hints_are_taken_from_job_events_whatever_these_hold() -> None:
    told: list[tuple[str, int]] = []

    class Listener:
        def hint(self, run: str, begun: int) -> None:
            told.append((run, begun))

    hints = Hints(Listener())  # type: ignore[arg-type]

    def event(**fields: Any) -> None:
        record = logging.LogRecord("x", logging.INFO, __file__, 1, "", None, None)
        vars(record).update(fields)
        hints.handle(record)

    event(event="job_info", jobid=1, wildcards={"run": "000001", "product": "raw"})
    event(event="job_info", jobid=2, wildcards={"batch": "b"})
    event(event="job_info", jobid=3, wildcards=None)
    event(event="job_started", jobs=["3c1e-uuid"])
    event(event="job_finished", job_id=2)
    event(event="job_error", jobid=1)
    event(event="job_error", jobid=1)
    event(event="job_finished")
    event(event="run_info", stats={})
    event()
    assert told == [("000001", 1), ("000001", -1)]
