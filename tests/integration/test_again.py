"""process and redo: what a person wants made of named runs, now, or once more."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from straxflow import actions
from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from straxflow.rundb.client import connect
from tests.site import STRAX_PRODUCTS, Result, Site


@pytest.fixture
def site(tmp_path: Path, rundb_server: RunDbServer, sshd: Sshd) -> Iterator[Site]:
    made = Site(tmp_path, rundb_server, sshd)
    yield made
    made.close()


def straxflow(site: Site, *words: str) -> Result:
    """The command in a shell of its own: it may become snakemake."""
    return site.command("straxflow", "--configfile", "config/config.yaml", *words)


def as_json(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.output[result.output.index("{") :])
    return found


def test_process_to_a_target_then_it_is_stored_already(site: Site) -> None:
    site.take(1)
    site.take(2, mode="led")
    site.runs.update_one({"number": 1}, {"$set": {"processing_status": {"status": "failed"}, "tags": ["odd"]}})
    assert straxflow(site, "process", "1", "--target", "sum").code == 2
    assert "did you mean 'sums'" in straxflow(site, "process", "1", "--target", "sum").output
    before, files = site.dump_database(), site.dump_files()
    planned = straxflow(site, "process", "1-2", "--target", "sums", "-n")
    assert planned.code == 0, planned.output
    assert "register 000001/sums" in planned.jobs
    assert not any("000002" in job for job in planned.jobs)
    assert "run 000002: nothing of this is made of it (mode led)" in planned.output
    assert (site.dump_database(), site.dump_files()) == (before, files)

    made = straxflow(site, "process", "1", "--target", "raw", "--reason", "look at it")
    assert made.code == 0, made.output
    assert "raw/registered.json" in site.receipts("000001")
    assert "sums/processed.json" not in site.receipts("000001")
    # not all is there, so the run keeps the state that it had
    assert site.status(1) == "failed"
    again = straxflow(site, "process", "000001", "--target", "raw")
    assert again.code == 0
    assert "stored already: raw" in again.output
    assert not again.jobs
    rest = straxflow(site, "process", "1")
    assert rest.code == 0, rest.output
    assert site.status(1) == "done"
    with connect(site.config) as db:
        assert [(a.command, a.reason) for a in actions.of_run(db, "online", "000001")] == [
            ("process", None),
            ("process raw", "look at it"),
        ]

    folder = site.receipts("000001")["sums/stored.json"]["folders"][0]
    (site.folder / "store" / folder).rename(site.folder / "elsewhere")
    lost = straxflow(site, "process", "1", "--target", "sums", "--json")
    assert lost.code == 1
    assert as_json(lost)["runs"][0]["missing"] == [f"sums ({folder})"]


def test_redo_a_product_whose_data_are_the_same(site: Site) -> None:
    site.take(1)
    assert straxflow(site, "process", "1").code == 0
    first, stored = site.receipts("000001"), site.products()
    before = site.dump_files()
    planned = straxflow(site, "redo", "1", "--from", "process", "--product", "raw", "-n", "--json")
    assert planned.code == 0, planned.output
    assert as_json(planned)["set_aside"]["000001"][0] == "released.json"
    assert site.dump_files() == before
    assert straxflow(site, "redo", "1", "--from", "move_out").code == 2  # staging was dropped
    with connect(site.config) as db:
        moment = db.now()
    owner = {"host": "elsewhere", "boot": "b", "pid": 7, "start": 1}
    claim = {"owner": owner, "batch": "b9", "lease_s": 600, "claimed": moment, "renewed": moment}
    site.runs.update_one({"number": 1}, {"$set": {"straxflow.online.claim": claim}})
    for extra in ("-n", "--no-run"):
        refused = straxflow(site, "redo", "1", "--from", "process", extra)
        assert refused.code == 1
        assert "invocation b9 works on it" in refused.output
    assert site.dump_files() == before
    site.runs.update_one({"number": 1}, {"$unset": {"straxflow.online.claim": ""}})

    done = straxflow(site, "redo", "1", "--from", "process", "--product", "raw", "--reason", "disk errors")
    assert done.code == 0, done.output
    assert {"process 000001/raw", "process 000001/sums", "release 000001"} <= set(done.jobs)
    assert not any(job.startswith("transfer") for job in done.jobs)
    again = site.receipts("000001")
    assert again["raw/processed.json"]["made"] != first["raw/processed.json"]["made"]
    assert again["raw/processed.json"]["adopted"] is None
    assert again["raw/stored.json"]["adopted"]
    assert site.products() == stored
    assert site.status(1) == "done"
    assert not (site.state().run("000001") / "raw/redo.json").exists()
    (history,) = (site.state().run("000001") / "history").iterdir()
    kept = json.loads((history / "raw/processed.json").read_text())
    assert kept == first["raw/processed.json"]
    assert json.loads((history / "redo.json").read_text())["reason"] == "disk errors"
    with connect(site.config) as db:
        assert actions.of_run(db, "online", "000001")[0].command == "redo from process of raw"
    assert len(site.doc(1)["data"]) == 4  # live twice, raw, sums: none was added
    little = straxflow(site, "redo", "1", "--from", "register", "--product", "sums")
    assert set(little.jobs) == {"register 000001/sums", "release 000001"}
    assert site.status(1) == "done"


def test_redo_whose_data_differ_leaves_the_stored_ones(site: Site) -> None:
    site.take(1)
    assert straxflow(site, "process", "1").code == 0
    made = site.receipts("000001")["sums/stored.json"]["folders"][0]
    target = site.folder / "store" / made / "sums"
    target.write_text("other\n")
    stored = site.products()
    redone = straxflow(site, "redo", "1", "--from", "process", "--product", "sums", "--no-run")
    assert redone.code == 0, redone.output
    assert site.status(1) == "pending"
    assert "to be done again from process" in site.reason(1)
    tried = site.snakemake()
    assert tried.code == 1
    assert site.status(1) == "failed"
    assert "differ" in site.reason(1)
    assert site.products() == stored


def test_private_products_touch_nothing_of_the_site(site: Site) -> None:
    site.take(1)
    mine = site.folder / "mine"
    early = straxflow(site, "process", "1", "--target", "sums", "--private", str(mine))
    assert early.code == 1
    assert "bring them first: straxflow process 000001 --target raw" in early.output
    assert site.snakemake("runs/000001/raw/processed.json").code == 0
    shutil.rmtree(mine)
    before, files = site.dump_database(), site.dump_files()

    for wrong in (site.folder / "staging", site.folder / "store/mine", site.folder / "state/online/mine"):
        refused = straxflow(site, "process", "1", "--target", "sums", "--private", str(wrong))
        assert refused.code == 2
        assert "belongs to a site" in refused.output
    planned = straxflow(site, "process", "1", "--target", "sums", "--private", str(mine), "-n")
    assert "would make sums in" in planned.output
    assert site.dump_files() == files

    # raw is in the site's staging only, not checksummed, not stored
    made = straxflow(site, "process", "1", "--target", "sums", "--private", str(mine))
    assert made.code == 0, made.output
    (folder,) = [path for path in mine.iterdir() if not path.name.startswith(".")]
    assert folder.name.startswith("000001-sums-")
    assert f"sums is in {folder.name}" in made.output
    assert f"strax.DataDirectory('{mine}'" in made.output
    again = straxflow(site, "process", "1", "--target", "sums", "--target", "raw", "--private", str(mine), "--json")
    assert [one["to_make"] for one in as_json(again)["made"]] == [[], ["raw"]]
    assert site.dump_database() == before
    left = {name: seen for name, seen in site.dump_files().items() if not name.startswith("mine/")}
    assert left == files
    assert not list((mine / ".scratch").iterdir())


def test_private_strax_data_are_those_of_the_site(site: Site) -> None:
    site.configure(products={name: STRAX_PRODUCTS[name] for name in ("raw_records", "peaks")})
    site.take(1, size_mb=1.0)
    assert site.snakemake("runs/000001/live/transferred.json").code == 0
    before = site.dump_database()
    mine = site.folder / "mine"
    made = straxflow(site, "process", "1", "--target", "peaks", "--private", str(mine))
    assert made.code == 0, made.output
    assert "making raw_records" in made.output
    assert "000001-peaks-" in made.output
    assert site.dump_database() == before
    assert straxflow(site, "process", "1").code == 0
    private = {name: digest for name, digest in site.products("mine").items() if not name.startswith(".")}
    assert private == site.products()
