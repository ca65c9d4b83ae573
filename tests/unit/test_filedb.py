"""Documents in one file: what straxflow asks of pymongo's Collection, between processes, and after a kill."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st
from mongomock.filtering import filter_applies
from pymongo import DESCENDING, InsertOne, ReplaceOne, ReturnDocument, UpdateMany, UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError

from straxflow.errors import RunDbError
from straxflow.rundb.filedb import NAME, FileDb
from straxflow.rundb.fileindex import Indexes

NOW = datetime(2026, 11, 1, 12, 0, 0, 123000, tzinfo=UTC)
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    FileDb.create(tmp_path / NAME)
    return tmp_path / NAME


def runs(file: Path) -> Any:
    """The collection as another process sees it."""
    return FileDb(file)["runs"]


def run(number: int, **fields: Any) -> dict[str, Any]:
    return {"_id": f"{number:06d}", "number": number, "end": NOW, "mode": "led", **fields}


def test_documents_come_back_as_they_were(file: Path) -> None:
    key = runs(file).insert_one({"number": 1, "t": NOW, "f": 1.5, "none": None, "data": [{"n": 2**40}]}).inserted_id
    assert isinstance(key, ObjectId)
    document = runs(file).find_one({"number": 1})
    assert document == {"_id": key, "number": 1, "t": NOW, "f": 1.5, "none": None, "data": [{"n": 2**40}]}
    assert document["t"].tzinfo is not None


def test_queries_and_updates_mean_what_they_mean_to_mongodb(file: Path) -> None:
    there = runs(file)
    there.insert_many([run(n, data=[{"type": "live", "host": "daq"}], tags=[]) for n in (1, 2, 3)])
    here = runs(file)
    assert [d["number"] for d in here.find({"number": {"$gte": 2}}, {"number": 1}).sort("number", DESCENDING)] == [3, 2]
    assert [d["number"] for d in here.find().sort("number", 1).skip(1).limit(1).batch_size(5)] == [2]
    entry = {"type": "raw", "host": "store"}
    absent = {"$nor": [{"data": {"$elemMatch": entry}}]}
    for matched in (1, 0):
        done = here.update_one({"number": 1, **absent}, {"$push": {"data": {"$each": [entry]}}, "$inc": {"a.n": 1}})
        assert done.matched_count == matched
    pulled = {"$pull": {"data": {"type": "live", "host": "daq"}}, "$push": {"deleted_data": {"at": NOW}}}
    assert here.update_one({"number": 1, "data": {"$elemMatch": {"type": "live"}}}, pulled).matched_count == 1
    assert there.find_one({"number": 1})["data"] == [entry]
    assert there.find_one({"number": 1})["deleted_data"] == [{"at": NOW}]
    after = there.find_one_and_update(
        {"number": {"$gt": 0}, "a.n": {"$exists": False}}, {"$set": {"a.n": 5}}, {"a": 1}, sort=[("number", -1)],
        return_document=ReturnDocument.AFTER,
    )  # fmt: skip
    assert after == {"_id": "000003", "a": {"n": 5}}
    assert here.update_many({"a.n": {"$exists": True}}, {"$set": {"b": NOW}, "$unset": {"mode": ""}}).matched_count == 2
    assert there.count_documents({"b": {"$lte": NOW}}) == 2
    assert there.distinct("mode") == ["led"]
    groups = [{"$match": {"number": {"$gt": 1}}}, {"$group": {"_id": "$mode", "n": {"$sum": 1}}}]
    assert sorted((g["_id"] or "", g["n"]) for g in there.aggregate(groups)) == [("", 1), ("led", 1)]
    assert here.delete_one({"number": 2}).deleted_count == 1
    assert there.find_one({"_id": "000002"}) is None
    assert runs(file).count_documents({}) == 2


def test_upserts_and_bulk_writes(file: Path) -> None:
    kept = FileDb(file).get_collection("watchers")
    kept.update_one({"_id": "site"}, {"$set": {"n": 1}}, upsert=True)
    kept.update_one({"name": "switch"}, {"$set": {"status": "on"}}, upsert=True)
    kept.update_one({"name": "switch"}, {"$set": {"status": "off"}}, upsert=True)
    for _ in range(2):
        kept.bulk_write(
            [
                ReplaceOne({"_id": "a"}, {"_id": "a", "n": 2}, upsert=True),
                UpdateOne({"_id": "site"}, {"$inc": {"n": 1}}),
            ],
            ordered=False,
        )
    kept.bulk_write([InsertOne({"_id": "b"})])
    other = FileDb(file).get_collection("watchers")
    assert sorted((str(d.get("_id")), d.get("n")) for d in other.find({"name": None})) == [
        ("a", 2), ("b", None), ("site", 3),
    ]  # fmt: skip
    assert other.find_one({"name": "switch"})["status"] == "off"
    with pytest.raises(DuplicateKeyError):
        other.insert_one({"_id": "site"})
    assert other.count_documents({}) == 4
    assert FileDb(file)["runs"].count_documents({}) == 0


def test_what_an_error_interrupts_is_undone(file: Path) -> None:
    here = runs(file)
    here.insert_one(run(1))
    with pytest.raises(DuplicateKeyError):
        here.insert_many([run(2), run(1)])
    for there in (here, runs(file)):
        assert there.count_documents({}) == 1


def test_a_refused_change_is_told_as_a_server_tells_it_and_changes_nothing(file: Path) -> None:
    here = runs(file)
    here.insert_many([run(1) | {"token": 1}, run(2) | {"token": "two"}])
    ids = [document["_id"] for document in here.find()]
    change = UpdateMany({"processing_status": None, "_id": {"$in": ids}}, {"$inc": {"token": 1}})
    with pytest.raises(BulkWriteError) as caught:
        here.bulk_write([change], ordered=False)
    assert "refused" in caught.value.details["writeErrors"][0]["errmsg"]
    assert [document["token"] for document in runs(file).find().sort("number", 1)] == [1, "two"]
    one = UpdateMany({"_id": {"$in": ids[:1]}}, {"$inc": {"token": 1}})
    assert here.bulk_write([one, one], ordered=False).matched_count == 2


def test_found_runs_are_there_and_written_once_somebody_writes_to_them(file: Path) -> None:
    found = [run(n) for n in (1, 2)]
    looks = []

    def look(known: Any) -> list[dict[str, Any]]:
        looks.append(1)
        return [d for d in found if not known(d["_id"])]

    here = runs(file)
    here.look = look
    assert sorted(d["number"] for d in here.find({"mode": "led"})) == [1, 2]
    assert runs(file).count_documents({}) == 0
    assert here.find_one_and_update({"number": 2, "claim": None}, {"$set": {"claim": "me"}})["number"] == 2
    there = runs(file)
    assert [(d["number"], d["claim"]) for d in there.find()] == [(2, "me")]
    # another process that found it too
    there.look = lambda known: [run(2), run(3)]
    assert there.find_one_and_update({"number": 2, "claim": None}, {"$set": {"claim": "other"}}) is None
    assert [d["number"] for d in there.find().sort("number", 1)] == [2, 3]

    # a known run needs no look, nor does what only a written document can be
    before = len(looks)
    assert here.find_one({"number": 2})["claim"] == "me"
    assert list(here.find({"straxflow.online.claim.batch": "b"})) == []
    assert len(looks) == before
    # a folder that is gone
    del found[0]
    assert [d["number"] for d in here.find()] == [2]


def test_a_run_that_was_tagged_while_it_was_taken_gets_its_end(file: Path) -> None:
    first = run(1, end=None)
    here = runs(file)
    here.look = lambda known: [] if known("000001") else [first]
    here.update_one({"number": 1}, {"$push": {"tags": "good"}})
    first = run(1, start=NOW)
    there = runs(file)
    there.look = here.look
    for one in (here, there):
        assert one.find_one({"number": 1}) == {**run(1, start=NOW), "tags": ["good"]}
    there.update_one({"number": 1}, {"$set": {"claim": 1}})
    assert runs(file).find_one({"number": 1}) == {**run(1, start=NOW), "tags": ["good"], "claim": 1}


VALUES = st.sampled_from([None, 0, 1, 2.5, "a", "b", True, NOW])
LEAVES = st.one_of(VALUES, st.lists(VALUES, max_size=2))
PARTS = st.dictionaries(st.sampled_from("xy"), LEAVES, max_size=2)
DOCUMENTS = st.dictionaries(st.sampled_from("abc"), st.one_of(LEAVES, PARTS, st.lists(PARTS, max_size=2)), max_size=3)
PATHS = st.sampled_from(["a", "b", "c", "a.x", "b.y", "c.x", "a.0", "b.1.x"])
CONDITIONS = st.one_of(
    VALUES,
    st.builds(lambda v: {"$in": v}, st.lists(VALUES, min_size=1, max_size=3)),
    st.builds(lambda v: {"$exists": v}, st.booleans()),
    st.builds(lambda o, v: {o: v}, st.sampled_from(["$gt", "$lte"]), st.sampled_from([1, "a", NOW])),
    st.builds(lambda v: {"$ne": v}, VALUES),
    st.builds(lambda v: {"$not": {"$gt": v}}, st.sampled_from([1, NOW])),
    st.builds(lambda v: {"$elemMatch": {"x": v}}, VALUES),
)
SIMPLE = st.dictionaries(PATHS, CONDITIONS, min_size=1, max_size=3)
FILTERS = st.one_of(
    SIMPLE,
    st.builds(lambda one, two: {"$or": [one, two]}, SIMPLE, SIMPLE),
    st.builds(lambda one, two: {"$and": [one, {"$or": two}]}, SIMPLE, st.lists(SIMPLE, min_size=1, max_size=2)),
)


@given(st.lists(DOCUMENTS, max_size=6), st.lists(FILTERS, min_size=1, max_size=4), st.lists(DOCUMENTS, max_size=3))
def test_what_indexes_narrow_is_what_matches(
    documents: list[dict[str, Any]], filters: list[dict[str, Any]], later: list[dict[str, Any]]
) -> None:
    indexes, here = Indexes(), dict[int, dict[str, Any]]()
    for wanted in filters * 2:
        for key, document in enumerate(documents if not here else later):
            indexes.put(key, document, here.get(key))
            here[key] = document
        ids = indexes.narrow(wanted, here)
        matching = {key for key, document in here.items() if filter_applies(wanted, document)}
        assert ids is None or matching <= ids, wanted


def _claim(file: Path, me: int, total: int, taken: Any) -> None:
    there = runs(file)
    mine = []
    for number in range(total):
        # all begin somewhere else, so that they meet
        wanted = {"number": (number + me * total // 8) % total, "owner": {"$exists": False}}
        if there.find_one_and_update(wanted, {"$set": {"owner": me}, "$inc": {"token": 1}}):
            mine.append(wanted["number"])
    taken.put(mine)


def test_eight_processes_claim_each_run_once(file: Path) -> None:
    total = 500
    runs(file).insert_many([run(n) for n in range(total)])
    taken = FORK.Queue()
    workers = [FORK.Process(target=_claim, args=(file, me, total, taken)) for me in range(8)]
    for worker in workers:
        worker.start()
    claimed = [taken.get(timeout=240) for _ in workers]
    for worker in workers:
        worker.join()
    assert sorted(n for mine in claimed for n in mine) == list(range(total))
    assert {d["token"] for d in runs(file).find()} == {1}


def _write_for_ever(file: Path) -> None:
    there = runs(file)
    while True:
        there.update_many({}, {"$inc": {"n": 1}})


def test_a_kill_in_the_middle_of_a_write_leaves_all_of_it_or_nothing(file: Path) -> None:
    runs(file).insert_many([run(n) for n in range(50)])
    for _ in range(5):
        writer = FORK.Process(target=_write_for_ever, args=(file,))
        before = runs(file).find_one({"number": 1}).get("n")
        writer.start()
        deadline = time.monotonic() + 60
        while runs(file).find_one({"number": 1}).get("n") == before and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(writer.pid or 0, signal.SIGKILL)
        writer.join()
        assert len({d.get("n", 0) for d in runs(file).find()}) == 1


def test_threads_share_it(file: Path) -> None:
    there = runs(file)
    there.insert_one(run(1, n=0))
    threads = [
        threading.Thread(target=lambda: [there.update_one({"number": 1}, {"$inc": {"n": 1}}) for _ in range(20)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert runs(file).find_one({"number": 1})["n"] == 80


def test_a_missing_or_foreign_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunDbError, match=r"no such file: is the disk mounted\? straxflow init makes it"):
        runs(tmp_path / NAME).find_one()
    assert not (tmp_path / NAME).exists()
    (tmp_path / NAME).write_text("something else" * 1000)
    with pytest.raises(RunDbError, match="not a database"):
        runs(tmp_path / NAME).find_one()
    (tmp_path / NAME).unlink()
    assert FileDb.create(tmp_path / NAME)
    assert not FileDb.create(tmp_path / NAME)
    connection = sqlite3.connect(tmp_path / NAME)
    connection.execute("pragma user_version = 7")
    connection.close()
    with pytest.raises(RunDbError, match="is of version 7, this straxflow knows 1"):
        runs(tmp_path / NAME).find_one()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_group_may_write_it_if_the_umask_lets_it(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        FileDb.create(tmp_path / NAME)
        runs(tmp_path / NAME).insert_one(run(1))
    finally:
        os.umask(before)
    assert {p.name: p.stat().st_mode & 0o777 for p in tmp_path.iterdir()} == {
        NAME: 0o664, f"{NAME}-journal": 0o664,
    }  # fmt: skip
