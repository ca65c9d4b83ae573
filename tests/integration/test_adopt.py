"""What an older tool made is taken over: verified, given receipts, its entries left as they are."""

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
    made.configure(products={name: STRAX_PRODUCTS[name] for name in ("raw_records", "peaks")})
    yield made
    made.close()


def straxflow(site: Site, *words: str) -> Result:
    return site.command("straxflow", "--configfile", "config/config.yaml", *words)


def as_if_by_an_older_tool(site: Site) -> None:
    """Data and documents as amstrax leaves them: no receipts, no digests, none of our fields."""
    for document in site.dump_database():
        entries: list[dict[str, Any]] = [document["data"][0]]
        for entry in document["data"]:
            if entry["by"] == "straxflow" and entry["type"] != "live":
                kept = {k: entry[k] for k in ("type", "host", "time", "n_chunks", "size_mb", "lineage_hash", "status")}
                entries.append({**kept, "by": "amstrax", "user": "cor", "location": str(site.folder / "store")})
        changes = {"data": entries, "processing_status": "done"}
        site.runs.update_one({"_id": document["_id"]}, {"$set": changes, "$unset": {"straxflow": ""}})
    for name in ("state/online", "live", "staging"):
        shutil.rmtree(site.folder / name)
    site.init()


def test_old_data_are_adopted_only_if_they_are_whole(site: Site) -> None:
    for number in (1, 2):
        site.take(number, size_mb=0.5)
    assert site.snakemake().code == 0
    as_if_by_an_older_tool(site)
    stored, entries = site.products(), {n: site.doc(n)["data"] for n in (1, 2)}
    broken = next(path for path in sorted((site.folder / "store").glob("000002-peaks-*/*")) if path.suffix != ".json")
    broken.unlink()

    before, files = site.dump_database(), site.dump_files()
    planned = straxflow(site, "adopt", "1-2", "-n", "--json")
    assert planned.code == 1, planned.output
    assert [run["whole"] for run in json.loads(planned.output)["runs"]] == [True, False]
    assert (site.dump_database(), site.dump_files()) == (before, files)

    adopted = straxflow(site, "adopt", "1-2", "--reason", "from amstrax")
    assert adopted.code == 1, adopted.output
    assert "1 of 2 runs are whole" in adopted.output
    assert {n: site.doc(n)["data"] for n in (1, 2)} == entries
    assert site.status(1) == "done"
    receipts = site.receipts("000001")
    assert receipts["peaks/registered.json"]["entries"][0]["by"] == "amstrax"
    assert receipts["peaks/processed.json"]["rebuilt"]
    assert site.status(2) == "done"  # as the older tool said; nothing of the broken product is claimed
    assert "raw_records/stored.json" in site.receipts("000002")
    assert not [name for name in site.receipts("000002") if name.startswith("peaks/")]
    with connect(site.config) as db:
        assert [(a.command, a.reason) for a in actions.of_run(db, "online", "000001")] == [("adopt", "from amstrax")]

    # an adopted product is a source like any other
    for path in (site.folder / "store").glob("000002-peaks-*"):
        path.rename(site.folder / path.name)
    made = straxflow(site, "process", "1-2", "--target", "peaks")
    assert made.code == 0, made.output
    assert "run 000001: stored already: peaks" in made.output
    assert "process 000002/peaks" in made.jobs
    assert not any(job.startswith(("transfer", "process 000002/raw")) for job in made.jobs)
    assert site.products() == stored
    assert site.doc(1)["data"] == entries[1]
    assert straxflow(site, "adopt", "77").code == 1
