"""A reprocessing campaign: products of many runs anew, from what another campaign stored."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from tests.site import QUICK_PRODUCTS, STRAX_PRODUCTS, Result, Site

CORRECTED = {**QUICK_PRODUCTS, "sums": {**QUICK_PRODUCTS["sums"]}}
CORRECTED["sums"]["command"] = (
    "sh -c 'echo {corrections} > {output}/version && cat {source}/{run}-raw-*/data/*/* | cksum > {output}/sums'"
)


@pytest.fixture
def site(tmp_path: Path, rundb_server: RunDbServer, sshd: Sshd) -> Iterator[Site]:
    made = Site(tmp_path, rundb_server, sshd)
    made.configure(products=CORRECTED)
    yield made
    made.close()


def straxflow(site: Site, *words: str) -> Result:
    return site.command("straxflow", "--configfile", "config/config.yaml", *words)


def reprocess(site: Site, *words: str) -> Result:
    return straxflow(site, "reprocess", "--campaign", "v5", *words)


def status(site: Site) -> dict[str, Any]:
    result = reprocess(site, "--status", "--json")
    assert result.code == 0, result.output
    found: dict[str, Any] = json.loads(result.output)
    return found


def work(site: Site) -> Result:
    return site.snakemake(env={"STRAXFLOW_CAMPAIGN": "v5"})


def test_from_stored_products_when_live_data_are_gone(site: Site) -> None:
    gains = site.folder / "gains"
    gains.mkdir()
    (gains / "v5-1").touch()
    check = f"sh -c 'test -e {gains}/{{version}}-{{number}} || {{{{ echo no gains of {{run}} yet; exit 3; }}}}'"
    site.configure(corrections={"check": check})
    for number in (1, 2):
        site.take(number, size_mb=0.5)
    site.take(3, mode="led", size_mb=0.5)
    assert site.snakemake().code == 0
    shutil.rmtree(site.folder / "live")
    shutil.rmtree(site.folder / "daq")
    site.init()
    (site.folder / "daq").mkdir()
    online = {number: site.receipts(f"{number:06d}") for number in (1, 2)}
    stored, entries = site.products(), {number: site.doc(number)["data"] for number in (1, 2)}

    before, files = site.dump_database(), site.dump_files()
    wanted = ("--runs", "1-4", "--targets", "sums", "--corrections", "v5")
    planned = reprocess(site, *wanted, "-n")
    assert planned.code == 0, planned.output
    assert "2 of 2 runs would be changed" in planned.output
    assert "1 runs left out" in planned.output
    assert (site.dump_database(), site.dump_files()) == (before, files)
    assert reprocess(site, "--status").code == 2
    assert straxflow(site, "reprocess", *wanted).code == 2  # of online
    assert reprocess(site, "--runs", "1", "--targets", "nothing").code == 2

    queued = reprocess(site, *wanted, "--reason", "new gains")
    assert queued.code == 0, queued.output
    assert site.status(1, "v5") == "pending"
    assert site.status(1) == "done"
    assert status(site)["states"] == {"pending": 2}
    # the same again changes nothing; something else needs another name
    assert "0 of 2 runs changed" in reprocess(site, *wanted).output
    other = reprocess(site, "--runs", "1", "--targets", "sums", "--corrections", "v6")
    assert other.code == 2
    assert "take another name" in other.output

    preview = site.dry_run(env={"STRAXFLOW_CAMPAIGN": "v5"})
    assert "waits: corrections v5 are missing: no gains of 000002 yet" in preview.output
    first = work(site)
    assert first.code == 0, first.output
    assert set(first.jobs) - {"rundoc 000001"} == {
        "process 000001/sums", "checksum 000001/sums", "move_out 000001/sums",
        "register 000001/sums", "release 000001",
    }  # fmt: skip
    assert site.status(1, "v5") == "done"
    assert site.status(2, "v5") == "pending"
    made = site.receipts("000001", "v5")
    assert made["sums/processed.json"]["source_campaign"] == "online"
    assert made["sums/processed.json"]["corrections"] == "v5"
    assert not any(name.startswith(("raw/", "live/")) for name in made)
    new = [entry for entry in site.doc(1)["data"] if entry not in entries[1]]
    assert [(e["type"], e["campaign"], e["corrections"]) for e in new] == [("sums", "v5", "v5")]
    folder = made["sums/stored.json"]["folders"][0]
    assert (site.folder / "store" / folder / "version").read_text() == "v5\n"
    told = status(site)
    assert told["states"]["done"] == 1
    assert "no gains of 000002 yet" in json.dumps(told["reasons"]) or told["states"].get("pending") == 1

    named = site.snakemake("runs/000002/sums/registered.json", env={"STRAXFLOW_CAMPAIGN": "v5"})
    assert named.code == 1
    assert "corrections v5 are missing" in named.output
    (gains / "v5-2").touch()
    site.runs.update_one({"number": 2}, {"$unset": {"straxflow.v5.wait_until": ""}})
    assert work(site).code == 0
    assert status(site)["states"] == {"done": 2}
    # what was there is as it was
    assert {number: site.receipts(f"{number:06d}") for number in (1, 2)} == online
    after = site.products()
    assert {name: after[name] for name in stored} == stored
    assert len(after) == len(stored) + 4
    assert site.status(2) == "done"


def test_pause_resume_cancel_and_a_source_that_is_missing(site: Site) -> None:
    site.configure(failures={"backoff_s": 600})
    for number in (1, 2, 3):
        site.take(number, size_mb=0.3)
    assert site.snakemake("runs/000001/raw/registered.json", "runs/000002/raw/registered.json").code == 0
    assert reprocess(site, "--runs", "1-3", "--targets", "sums").code == 0
    paused = reprocess(site, "--pause", "--reason", "wrong gains")
    assert "3 of 3 runs changed" in paused.output
    assert status(site)["states"] == {"paused": 3}
    idle = work(site)
    assert idle.code == 0
    assert idle.jobs == []
    assert "2 of 2 runs changed" in reprocess(site, "--resume", "--runs", "2-3").output
    done = straxflow(site, "--profile", "local", "--campaign", "v5", "watch", "--once", "--poll", "0.5")
    assert done.code == 0, done.output
    assert site.status(2, "v5") == "done"
    told = status(site)
    assert told["states"]["paused"] == told["states"]["done"] == 1
    assert "raw is not stored in campaign online" in site.doc(3)["straxflow"]["v5"]["processing_status"]["reason"]
    cancelled = reprocess(site, "--cancel", "--json")
    assert json.loads(cancelled.output)["changed"] == 2
    assert status(site)["states"] == {"cancelled": 2, "done": 1}
    assert status(site)["total"] == 1
    assert work(site).jobs == []
    again = reprocess(site, "--runs", "1-3")
    assert "2 of 3 runs changed" in again.output
    assert reprocess(site, "--pause", "--targets", "sums").code == 2


def test_strax_data_of_another_lineage_beside_those_of_online(site: Site) -> None:
    site.configure(products={name: STRAX_PRODUCTS[name] for name in ("raw_records", "peaks")})
    site.take(1, size_mb=0.5)
    assert site.snakemake().code == 0
    online = site.receipts("000001")["peaks/processed.json"]["targets"]["peaks"]["lineage_hash"]
    assert reprocess(site, "--runs", "1", "--targets", "peaks", "--set", "peak_gap=800").code == 0
    done = work(site)
    assert done.code == 0, done.output
    made = site.receipts("000001", "v5")["peaks/processed.json"]["targets"]["peaks"]
    assert made["lineage_hash"] != online
    assert len([path for path in (site.folder / "store").iterdir() if "-peaks-" in path.name]) == 2
