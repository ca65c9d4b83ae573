"""What the run database shows while runs are worked on, by the literal command line."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from straxflow.rundb.client import connect
from straxflow.rundb.history import history_of
from tests.site import Site

MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(tmp_path: Path, rundb_server: RunDbServer, sshd: Sshd) -> Iterator[MakeSite]:
    sites: list[Site] = []

    def make(server: RunDbServer = rundb_server, **settings: Any) -> Site:
        sites.append(Site(tmp_path / f"site{len(sites)}", server, sshd, settings=settings))
        return sites[-1]

    yield make
    for site in sites:
        if site.rundb is rundb_server:
            site.close()


def waiting(flag: Path) -> dict[str, Any]:
    """A product that is made as soon as a file is there."""
    line = f"sh -c 'until test -e {flag}; do sleep 0.1; done; cat {{source}}/{{run}}/*/* > {{output}}/data'"
    return {"raw": {"from": "live", "kind": "command", "command": line}}


def products(site: Site, number: int) -> dict[str, Any]:
    found: dict[str, Any] = site.doc(number).get("straxflow", {}).get("online", {}).get("products", {})
    return found


FIELDS = {
    "raw_status": {"from": "live", "values": {"running": "transferring", "done": "ondeck"}, "wanted": ["acquired"]},
    "processed_status": {
        "values": {"submitted": "queueing", "running": "processing", "done": "processed", "failed": "failed"}
    },
}


def test_states_are_seen_while_a_run_is_worked_on(make_site: MakeSite, tmp_path: Path) -> None:
    flag = tmp_path / "go"
    site = make_site(products=waiting(flag), states={"fields": FIELDS})
    site.take(1)
    # as an older DAQ leaves it: no data entry, its own word
    site.runs.update_one({"number": 1}, {"$set": {"raw_status": "acquired", "data": []}})
    with site.background() as running:
        seen = running.until(lambda: products(site, 1).get("raw", {}).get("state") == "running" and products(site, 1))
        running.until(lambda: site.status(1) == "running" and site.reason(1) == "process of raw")
        assert seen["raw"]["step"] == "process"
        assert site.state().folder / seen["raw"]["log"]
        running.until(lambda: products(site, 1)["live"]["state"] == "done")
        assert products(site, 1)["live"]["size_mb"] > 0
        document = site.doc(1)
        assert (document["raw_status"], document["processed_status"]) == ("ondeck", "processing")
        with connect(site.config) as db:
            open_ones = [a for a in history_of(db, "online", "000001") if a.ended is None]
        assert [(a.step, a.product) for a in open_ones] == [("process", "raw")]
        flag.touch()
        assert running.wait().code == 0, running.output
    document = site.doc(1)
    assert site.status(1) == "done"
    assert document["processed_status"] == "processed"
    assert {n: (p["state"], p["step"]) for n, p in products(site, 1).items()} == {
        "live": ("done", "register_live"),
        "raw": ("done", "register"),
    }
    part = document["straxflow"]["online"]
    assert part["release"]["state"] == "done"
    assert "claim" not in part
    with connect(site.config) as db:
        history = history_of(db, "online", "000001")
    assert [(a.product, a.step, a.outcome) for a in history] == [
        (a.product, a.step, "ok") for a in site.attempts("000001")
    ]
    assert all(a.ended and a.cpu_seconds and a.owner["host"] for a in history)


@pytest.mark.fault(
    group="rundb",
    broken="it is away while jobs run",
    left="the jobs end as they would have",
    next="tells what could not be told",
)
def test_a_database_that_is_away_stops_no_job(make_site: MakeSite, lab_folder: Path, tmp_path: Path) -> None:
    flag = tmp_path / "go"
    with RunDbServer(lab_folder / "away") as server:
        site = make_site(server, products=waiting(flag), steps=["transfer", "process", "checksum", "move_out"])
        site.configure(rundb={"timeout_s": 1})
        site.take(1)
        with site.background() as running:
            registered = site.state().run("000001") / "live" / "registered.json"
            running.until(lambda: registered.is_file() and products(site, 1).get("raw", {}).get("state") == "running")
            server.kill()
            flag.touch()
            stored = site.state().run("000001") / "raw" / "stored.json"
            running.until(stored.is_file)
            server.start()
            result = running.wait()
        assert result.code == 0, result.output
        assert "Traceback" not in result.output
        assert (site.status(1), site.reason(1)) == ("pending", "reached transfer process checksum move_out")
        assert {n: p["state"] for n, p in products(site, 1).items()} == {"live": "done", "raw": "done"}
        with connect(site.config) as db:
            assert len(history_of(db, "online", "000001")) == len(site.attempts("000001")) == 5


@pytest.mark.fault(
    group="rundb",
    broken="it is away when a product is to be registered",
    left="all but the entries; no failure counted",
    next="registers them",
)
def test_a_registration_waits_for_a_database_that_is_away(
    make_site: MakeSite, lab_folder: Path, tmp_path: Path
) -> None:
    flag = tmp_path / "go"
    with RunDbServer(lab_folder / "away2") as server:
        site = make_site(server, products=waiting(flag))
        site.configure(rundb={"timeout_s": 1})
        site.take(1)
        with site.background() as running:
            registered = site.state().run("000001") / "live" / "registered.json"
            running.until(lambda: registered.is_file() and products(site, 1).get("raw", {}).get("state") == "running")
            server.kill()
            flag.touch()
            running.until(lambda: any(a.step == "register" and a.ended for a in site.attempts("000001")))
            server.start()
            result = running.wait()
        assert result.code == 1
        assert site.status(1) == "pending"
        assert "register of raw: the run database at" in site.reason(1)
        part = site.doc(1)["straxflow"]["online"]
        assert "failures" not in part
        assert part["products"]["raw"]["state"] == "waiting"
        site.runs.update_one({"number": 1}, {"$unset": {"straxflow.online.wait_until": ""}})
        assert site.snakemake().code == 0
        assert site.status(1) == "done"


def test_a_persons_word_and_a_malformed_document_harm_nothing_else(make_site: MakeSite, tmp_path: Path) -> None:
    flag = tmp_path / "go"
    site = make_site(products=waiting(flag))
    for number in (1, 2):
        site.take(number, size_mb=0.5)
    with site.background() as running:
        running.until(lambda: site.status(1) == site.status(2) == "running")
        site.runs.update_one({"number": 1}, {"$set": {"processing_status": {"status": "pending", "reason": "look"}}})
        site.runs.update_one({"number": 2}, {"$set": {"straxflow.online.products": "nonsense"}})
        flag.touch()
        running.until(lambda: products(site, 1)["raw"]["step"] != "process")
        assert running.wait().code == 0, running.output
    assert site.doc(1)["processing_status"] == {"status": "pending", "reason": "look"}
    assert products(site, 1)["raw"]["state"] == "done"
    assert "claim" not in site.doc(1)["straxflow"]["online"]
    assert site.status(2) == "done"
    assert products(site, 2)["raw"]["state"] == "done"


def test_after_a_kill_the_documents_wait_for_the_next_invocation(make_site: MakeSite, tmp_path: Path) -> None:
    flag = tmp_path / "go"
    site = make_site(products=waiting(flag))
    site.take(1, size_mb=0.5)
    with site.background() as running:
        running.until(lambda: site.status(1) == "running")
        running.kill()
        before = site.doc(1)
        told = site.command("straxflow", "--configfile", str(site.root / "config" / "config.yaml"), "sync", "1")
        assert told.code == 0, told.output
        assert site.doc(1) == before
        flag.touch()
        again = site.snakemake()
    assert again.code == 0, again.output
    assert site.status(1) == "done"
    assert {p["state"] for p in products(site, 1).values()} == {"done"}
    with connect(site.config) as db:
        known = history_of(db, "online", "000001")
    assert [(a.step, a.outcome) for a in known] == [(a.step, a.outcome) for a in site.attempts("000001")]
    assert all(attempt.ended for attempt in known)
