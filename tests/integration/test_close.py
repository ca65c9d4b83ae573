"""A DAQ killed in the middle of a run: its good chunks are taken, marked as such, from end to end."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from straxflow import actions
from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from straxflow.rundb.client import connect
from tests.site import DAQ_HOST, ROOT, STRAX_PRODUCTS, Result, Site, wait_until


@pytest.fixture
def site(tmp_path: Path, rundb_server: RunDbServer, sshd: Sshd) -> Iterator[Site]:
    made = Site(tmp_path, rundb_server, sshd)
    yield made
    made.close()


def straxflow(site: Site, *words: str) -> Result:
    return site.command("straxflow", "--configfile", "config/config.yaml", *words)


def kill_daq(site: Site, number: int, condition: Callable[[Path], Any]) -> None:
    """Let a DAQ take a run in real time, and kill it as soon as its folder is as wanted."""
    words = ["--folder", str(site.folder / "daq"), "--uri", site.rundb.uri, "--database", site.database]
    words += ["--host", DAQ_HOST, "--first", str(number), "--realtime", "--duration", "60", "--size-mb", "120"]
    words += ["--chunk-length", "0.5", "--chunk-overlap", "0.1"]
    daq = subprocess.Popen([sys.executable, "-m", "straxflow.lab.daq", *words], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        folder = site.folder / "daq" / f"{number:06d}"
        wait_until(lambda: folder.is_dir() and condition(folder), 90, lambda: daq.poll() is None)
    finally:
        os.kill(daq.pid, signal.SIGKILL)
        daq.wait()


def test_a_crashed_daq_s_run_is_closed_and_stored_as_partial(site: Site) -> None:
    site.configure(
        products={"raw_records": STRAX_PRODUCTS["raw_records"]}, release={"live": "drop"}, runs={"min_run_number": 1}
    )
    kill_daq(site, 1, lambda folder: (folder / "000003_post").is_dir() and len(list(folder.glob("000003_post/*"))) == 2)
    live = site.folder / "daq/000001"
    assert not (live / "THE_END").exists()
    # a reader died between the files of its last chunk
    for torn in live.glob("000003_post/*"):
        torn.unlink()
        break
    before = site.dump_database()
    assert site.dry_run().jobs == []

    refused = straxflow(site, "close", "1", "--reason", "power cut")
    assert refused.code == 1
    assert "3 of 4 chunks are good" in refused.output or "3 of 5 chunks are good" in refused.output
    assert "give --partial" in refused.output
    assert straxflow(site, "close", "1", "--partial", "--reason", "power cut", "-n").code == 0
    assert site.dump_database() == before
    closed = straxflow(site, "close", "1", "--partial", "--reason", "power cut")
    assert closed.code == 0, closed.output
    document = site.doc(1)
    assert (document["end"] - document["start"]).total_seconds() == pytest.approx(3 * 0.6)
    assert document["straxflow"]["partial"]["chunks"] == 3
    assert site.status(1) == "pending"
    assert "was closed already" in straxflow(site, "close", "1", "--partial", "--reason", "again").output

    done = site.snakemake()
    assert done.code == 0, done.output
    assert site.status(1) == "done"
    receipts = site.receipts("000001")
    assert receipts["run.json"]["partial"]["reason"] == "power cut"
    received = receipts["live/transferred.json"]
    assert received["check"]["chunks"] == 4  # three good ones, and the empty one that ends it
    assert not any(path.startswith(("000003/", "000003_post/")) and size for path, size, _ in received["files"])
    made = receipts["raw_records/processed.json"]
    assert made["records_in"] == made["records_out"] > 0
    entries = site.doc(1)["data"]
    assert [entry.get("partial") for entry in entries if entry["by"] == "straxflow"] == [True]
    (retired,) = site.doc(1)["deleted_data"]
    assert retired["partial"]
    # the DAQ's copy, with its torn chunk, vouched for the good ones
    assert str(site.folder / "live/000001") in receipts["released.json"]["dropped"]
    with connect(site.config) as db:
        (action,) = actions.of_run(db, "online", "000001")
        assert action.command.startswith("close --partial (3 of ")


def test_a_run_that_is_still_written_or_came_whole_is_not_closed(site: Site) -> None:
    def growing(folder: Path) -> bool:
        if not (folder / "000001").is_dir():
            return False
        writing = straxflow(site, "close", "1", "--partial", "--reason", "impatient")
        assert writing.code == 1
        assert "still being written" in writing.output
        return True

    kill_daq(site, 1, growing)
    # a run whose DAQ ended it, but for its document
    site.take(2, size_mb=1.0)
    site.runs.update_one({"number": 2}, {"$set": {"end": None}})
    closed = straxflow(site, "close", "2", "--reason", "the dispatcher crashed")
    assert closed.code == 0, closed.output
    assert "whole" in closed.output
    assert "straxflow" not in site.doc(2)
    site.runs.delete_one({"number": 1})
    done = site.snakemake()
    assert done.code == 0, done.output
    assert site.status(2) == "done"
    assert "have arrived whole" in straxflow(site, "close", "2", "--reason", "again").output
    assert straxflow(site, "close", "77", "--reason", "x").code == 1


def test_a_reader_that_died_though_the_run_has_an_end(site: Site) -> None:
    site.configure(transfer={"wait_s": 0})
    plan = site.take(1, size_mb=2.0)
    live = site.folder / "daq/000001"
    for signed in sorted((live / "THE_END").iterdir())[:1]:
        signed.unlink()
    waiting = site.snakemake()
    assert waiting.code == 1
    assert site.status(1) == "pending"
    assert "run.json" in site.receipts("000001")
    closed = straxflow(site, "close", "1", "--partial", "--reason", "reader0 died")
    assert closed.code == 0, closed.output
    assert site.doc(1)["end"] == plan.end.replace(microsecond=plan.end.microsecond // 1000 * 1000)
    assert "run.json" not in site.receipts("000001")
    assert "wait_until" not in site.doc(1)["straxflow"]["online"]
    done = site.snakemake()
    assert done.code == 0, done.output
    assert site.status(1) == "done"
    assert site.receipts("000001")["run.json"]["partial"]["chunks"] >= 1
