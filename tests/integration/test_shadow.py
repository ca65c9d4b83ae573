"""Beside an older tool: the same runs are processed, and nothing that it reads changes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from straxflow.cli import main
from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from tests.site import DAQ_HOST, Document, Site

OLD = {"status": "done", "time": datetime(2026, 1, 1, tzinfo=UTC), "host": "old", "reason": None}


@pytest.fixture
def site(tmp_path: Path, rundb_server: RunDbServer, sshd: Sshd) -> Iterator[Site]:
    site = Site(tmp_path, rundb_server, sshd, settings={"shadow": {"enabled": True}})
    yield site
    site.close()


def shared(site: Site) -> list[Document]:
    """All that others read of the run documents, in their order of keys."""
    return [{k: v for k, v in document.items() if k != "straxflow"} for document in site.dump_database()]


def finish_as_older_tool(site: Site, number: int, state: object = OLD) -> None:
    entry = {"type": "raw", "host": "old", "location": "/old/store"}
    site.runs.update_one({"number": number}, {"$set": {"processing_status": state}, "$push": {"data": entry}})


@pytest.mark.slow
def test_a_whole_run_leaves_all_shared_fields_as_they_are(site: Site) -> None:
    for number, state in ((1, OLD), (2, "done"), (3, {**OLD, "status": "running"}), (4, None)):
        site.take(number, "led", 0.5)
        if state:
            finish_as_older_tool(site, number, state)
    before = shared(site)

    preview = site.dry_run()
    assert "2 pending runs would be claimed" in preview.output, preview.output
    result = site.snakemake()
    assert result.code == 0, result.output
    assert [str(d) for d in shared(site)] == [str(d) for d in before]

    # all is in its own part of the documents, and in its own store
    for number in (1, 2):
        ours = site.doc(number)["straxflow"]["online"]
        assert ours["processing_status"]["status"] == "done"
        assert "claim" not in ours
        assert [(e["type"], e["host"]) for e in ours["data"]] == [("live", "testsite"), ("raw", "testsite")]
        assert f"{number:06d}-raw" in "".join(site.products())
    assert all("straxflow" not in site.doc(number) for number in (3, 4))
    assert "0 pending runs would be claimed" in site.dry_run().output

    # compared with what the older tool made: the same, different, out of reach, and not there
    compare = ["straxflow", "--configfile", str(site.root / "config" / "config.yaml"), "compare"]
    assert "unreachable" in site.command(*compare, "1").output
    old = site.folder / "old"
    shutil.copytree(site.folder / "store", old)
    site.runs.update_many(
        {"data.host": "old"}, {"$set": {"data.$[e].location": str(old)}}, array_filters=[{"e.host": "old"}]
    )
    same = site.command(*compare)
    assert same.code == 0, same.output
    assert [line.split()[2] for line in same.output.splitlines()[1:3]] == ["same", "same"]
    data = next(p for p in sorted(old.glob("000002-raw-*/data/0*/*")) if p.stat().st_size)
    data.write_bytes(bytes(data.stat().st_size))
    differs = site.command(*compare, "2")
    assert differs.code == 1
    assert "1 of " in differs.output and "(other content)" in differs.output
    data.unlink()
    assert "(only ours)" in site.command(*compare, "2").output
    site.runs.update_one({"number": 2}, {"$pull": {"data": {"host": "old"}}})
    assert "no other tool has registered such data" in site.command(*compare, "2").output

    # a failure is not counted where the older tool counts
    site.take(5, "led", 0.5)
    finish_as_older_tool(site, 5)
    (site.folder / "daq" / "000005" / "000000").rename(site.folder / "daq" / "000005" / "gone")
    before = shared(site)
    assert site.snakemake().code == 1
    assert site.doc(5)["straxflow"]["online"]["processing_status"]["status"] == "failed"
    assert [str(d) for d in shared(site)] == [str(d) for d in before]

    # named by a person, whatever the older tool thinks of it
    assert site.snakemake("runs/000004/raw/registered.json").code == 0
    assert [str(d) for d in shared(site)] == [str(d) for d in before]


def test_orders_that_the_older_tool_would_read_are_refused(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.document(1)
    before = shared(site)
    config = ["--configfile", str(site.root / "config" / "config.yaml")]
    for words in (["tag", "abandon", "1"], ["switch", "off", "--reason", "-"], ["close", "1", "--reason", "-"]):
        assert main([*config, *words]) == 2, words
        assert "belong to the older tool too, and site testsite is its shadow" in capsys.readouterr().err
    assert main([*config, "mark", "1", "--done", "--reason", "-"]) == 0
    assert site.doc(1)["straxflow"]["online"]["processing_status"]["status"] == "done"
    assert [str(d) for d in shared(site)] == [str(d) for d in before]
    assert site.client[site.database].list_collection_names() == ["runs", "straxflow_actions"]


def test_any_run_with_live_data_if_so_configured(site: Site) -> None:
    for number in (1, 2, 3):
        site.document(number)
    finish_as_older_tool(site, 1)
    site.runs.update_one({"number": 3}, {"$pull": {"data": {"host": DAQ_HOST}}})
    site.configure(shadow={"states": ["*"]})
    assert "2 pending runs would be claimed" in site.dry_run().output
