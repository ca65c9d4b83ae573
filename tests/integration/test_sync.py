"""Run documents are brought in line with the receipts; what people wrote stays."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from straxflow.rundb.client import connect
from straxflow.rundb.history import COLLECTION, history_of
from tests.site import QUICK_PRODUCTS, Result, Site

MakeSite = Callable[..., Site]
RAW = {"raw": QUICK_PRODUCTS["raw"]}


@pytest.fixture
def make_site(tmp_path: Path, rundb_server: RunDbServer, sshd: Sshd) -> Iterator[MakeSite]:
    sites: list[Site] = []

    def make(**settings: Any) -> Site:
        sites.append(Site(tmp_path / f"site{len(sites)}", rundb_server, sshd, settings={"products": RAW, **settings}))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


def sync(site: Site, *words: str) -> Result:
    return site.command("straxflow", "--configfile", str(site.root / "config" / "config.yaml"), "sync", *words)


def make_done(site: Site, count: int) -> None:
    """Several done runs: the first by the workflow, the others its likeness."""
    site.take(1, size_mb=0.5)
    assert site.snakemake().code == 0
    first = site.doc(1)
    for number in range(2, count + 1):
        site.runs.insert_one({**first, "_id": number, "number": number})
        run = f"{number:06d}"
        shutil.copytree(site.state().run("000001"), site.state().run(run))
        for file in site.state().run(run).rglob("*.json"):
            info = file.stat()
            file.write_text(file.read_text().replace("000001", run))
            os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))
    with connect(site.config) as db:
        for row in db.ours(COLLECTION).find({"run": "000001"}):
            for run in (f"{number:06d}" for number in range(2, count + 1)):
                db.ours(COLLECTION).insert_one({**row, "_id": row["_id"].replace("000001", run), "run": run})


def set_status(site: Site, number: int, **fields: Any) -> None:
    site.runs.update_one({"number": number}, {"$set": {f"processing_status.{k}": v for k, v in fields.items()}})


def test_documents_follow_the_receipts_and_people(make_site: MakeSite) -> None:
    site = make_site(
        runs={"min_run_number": 1, "settle_s": 0},
        states={"fields": {"raw_status": {"from": "live", "values": {"done": "ondeck", "pending": "acquired"}}}},
    )
    make_done(site, 7)
    again = sync(site, "--all")
    assert again.code == 0, again.output
    assert "7 runs looked at: 0 states and the details of 0 more corrected, 0 attempts added" in again.output

    set_status(site, 1, status="running")  # nobody works on it, and it is done
    (site.state().run("000002") / "raw" / "stored.json").unlink()
    site.runs.update_one({"number": 3}, {"$set": {"processing_status": "pending"}})  # a person's word
    site.runs.update_one({"number": 4}, {"$set": {"processing_status": {"status": "failed", "reason": "bad run"}}})
    (site.state().run("000005") / "raw" / "stored.json").unlink()
    set_status(site, 5, status="submitted")
    # 6: the database came back from an old copy
    site.runs.update_one({"number": 6}, {"$unset": {"straxflow": "", "processing_status": "", "raw_status": ""}})
    claim = {"batch": "b", "owner": {"host": "elsewhere", "boot": "b", "pid": 1, "start": 1}, "lease_s": 600}
    set_status(site, 7, status="running")
    site.runs.update_one({"number": 7}, {"$set": {"straxflow.online.claim": claim}})
    with connect(site.config) as db:
        assert db.ours(COLLECTION).delete_many({"run": "000006"}).deleted_count == 7

    before, claimed = site.dump_database(), site.doc(7)
    shown = sync(site, "--all", "--dry-run", "--json")
    assert site.dump_database() == before
    done = sync(site, "--all", "--json")
    assert done.code == 0, done.output
    told, foretold = json.loads(done.output), json.loads(shown.output)
    assert told["changes"] == foretold["changes"]
    states = {c["run"]: (c["kind"], c["before"], c["after"]) for c in told["changes"] if c["kind"] != "details"}
    assert states == {
        "000001": ("state", "running", "done"),
        "000002": ("downgrade", "done", "pending"),
        "000005": ("state", "submitted", "pending"),
        "000006": ("state", None, "done"),
    }
    assert told["attempts_added"] == foretold["attempts_added"] == 7
    assert [site.status(n) for n in range(1, 8)] == [
        "done",
        "pending",
        "pending",
        "failed",
        "pending",
        "done",
        "running",
    ]
    assert site.reason(2) == "straxflow sync: the receipts of raw are missing or not good"
    assert site.doc(4)["processing_status"] == {"status": "failed", "reason": "bad run"}
    assert site.doc(6)["raw_status"] == "ondeck"
    assert site.doc(6)["straxflow"]["online"]["products"]["raw"]["state"] == "done"
    assert site.doc(7)["straxflow"]["online"]["claim"] == claim
    assert site.doc(7) == claimed
    with connect(site.config) as db:
        assert len(history_of(db, "online", "000006")) == 7
    quiet = sync(site, "--all", "--json")
    assert json.loads(quiet.output)["changes"] == []


def test_a_lost_state_folder_downgrades_nothing(make_site: MakeSite) -> None:
    site = make_site(sync={"max_downgrades": 1})
    make_done(site, 3)
    before = site.dump_database()

    folder = site.state().folder
    folder.rename(folder.with_name("away"))
    unmounted = sync(site, "--all")
    assert unmounted.code == 1
    assert "is the disk mounted?" in unmounted.output
    site.init()
    for words in (["--all"], ["1"]):
        empty = sync(site, *words)
        assert empty.code == 1
        assert "refused: " in empty.output
        assert "straxflow rebuild" in empty.output
    assert site.dump_database() == before

    shutil.rmtree(folder)
    folder.with_name("away").rename(folder)
    for run in ("000001", "000002"):
        shutil.rmtree(site.state().run(run))
    many = sync(site)
    assert many.code == 1
    assert "2 runs would lose their `done`, more than sync.max_downgrades (1)" in many.output
    assert site.dump_database() == before
    assert sync(site, "2").code == 0
    assert [site.status(n) for n in (1, 2, 3)] == ["done", "pending", "done"]
    assert sync(site, "--yes-downgrade").code == 0
    assert [site.status(n) for n in (1, 2, 3)] == ["pending", "pending", "done"]


def test_a_product_that_was_added_to_the_configuration_downgrades_nothing(make_site: MakeSite) -> None:
    site = make_site()
    site.take(1, size_mb=0.5)
    assert site.snakemake().code == 0
    site.configure(products=QUICK_PRODUCTS)
    told = sync(site, "1")
    assert told.code == 0, told.output
    assert "done without sums, which came into the configuration later" in told.output
    assert site.status(1) == "done"


def test_an_invocation_begins_with_the_runs_in_doubt(make_site: MakeSite) -> None:
    site = make_site()
    site.take(1, size_mb=0.5)
    assert site.snakemake().code == 0
    set_status(site, 1, status="submitted")
    with site.background() as running:
        assert running.wait().code == 0
    assert site.status(1) == "done"
