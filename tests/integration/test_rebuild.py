"""Receipts that were lost are made anew from the store and the run database; nothing that cannot be verified is."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from tests.site import STRAX_PRODUCTS, Result, Site

MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(tmp_path: Path, rundb_server: RunDbServer, sshd: Sshd) -> Iterator[MakeSite]:
    sites: list[Site] = []

    def make(**settings: Any) -> Site:
        sites.append(Site(tmp_path / f"site{len(sites)}", rundb_server, sshd, settings=settings))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


def straxflow(site: Site, *words: str) -> Result:
    return site.command("straxflow", "--configfile", str(site.root / "config" / "config.yaml"), *words)


def lose_state(site: Site) -> None:
    """The disk with the state folder is lost; `straxflow init` makes a new one."""
    shutil.rmtree(site.state().folder)
    site.init()


def essence(receipts: dict[str, Any]) -> dict[str, Any]:
    """What receipts say of the data, without times, hosts and what nobody can know afterwards."""
    passing = ("made", "rebuilt", "seconds", "cpu_seconds", "peak_rss_mb", "host", "adopted", "settings", "dropped",
               "versions", "kept", "bytes")  # fmt: skip
    return {name: {k: v for k, v in receipt.items() if k not in passing} for name, receipt in receipts.items()}


def test_a_lost_state_folder_is_rebuilt_and_nothing_is_made_again(make_site: MakeSite) -> None:
    site = make_site(products={name: STRAX_PRODUCTS[name] for name in ("raw_records", "peaks")})
    site.take(1)
    assert site.snakemake().code == 0
    before = {"000001": site.receipts("000001")}
    data, documents = site.products(), site.dump_database()
    lose_state(site)

    shown = straxflow(site, "rebuild", "--all", "--dry-run")
    assert shown.code == 0, shown.output
    assert "run 000001: would rebuild run (run.json), live (transferred.json, registered.json)" in shown.output
    assert list(site.state().all_runs()) == []
    assert site.dump_database() == documents

    done = straxflow(site, "rebuild", "--all")
    assert done.code == 0, done.output
    assert done.output.splitlines()[-1] == "1 of 1 runs are whole"
    for run, receipts in before.items():
        now, then = essence(site.receipts(run)), essence(receipts)
        for told in (now, then):
            del told["live/transferred.json"]["check"]["seconds"]
        assert now.keys() == then.keys()
        assert [(name, key) for name in then for key in then[name] if now[name].get(key) != then[name][key]] == []
    made = site.receipts("000001")["peaks/processed.json"]
    assert made["settings"] == before["000001"]["peaks/processed.json"]["settings"]
    assert made["rebuilt"] == "strax' own metadata, and the digest in the run document"
    assert [d["processing_status"]["status"] for d in site.dump_database()] == ["done"]

    again = straxflow(site, "rebuild", "1", "--json")
    assert all(not part["rebuilt"] for run in json.loads(again.output)["runs"] for part in run["parts"])
    site.runs.update_many({}, {"$set": {"processing_status": "pending"}})
    plain = site.snakemake()
    assert (plain.code, plain.jobs) == (0, []), plain.output
    assert site.status(1) == "done"
    assert site.products() == data
    assert [len(d["data"]) for d in site.dump_database()] == [len(d["data"]) for d in documents]
    assert site.scratch() == []


def test_what_cannot_be_verified_is_not_claimed(make_site: MakeSite) -> None:
    site = make_site(release={"live": "drop"}, products={"raw_records": {"from": "live"}, **_command("raw_records")})
    for number in (1, 2, 3, 4):
        site.take(number, size_mb=1)
    assert site.snakemake().code == 0
    store = site.folder / "store"
    lose_state(site)
    # 1: a bit flips in the store, size and metadata as they were
    file = max((p for p in store.glob("000001-raw_records-*/*")), key=lambda p: p.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    # 2: a product is gone; 3: its entries are
    shutil.rmtree(next(store.glob("000002-sums-*")))
    site.runs.update_one({"number": 3}, {"$pull": {"data": {"type": "sums"}}})
    # 4: the live copy was dropped, nothing says so
    site.runs.update_one({"number": 4}, {"$set": {"deleted_data": []}})
    result = straxflow(site, "rebuild", "--all", "--json")
    assert result.code == 1
    runs = {run["run"]: run for run in json.loads(result.output)["runs"]}
    parts = {run: {part["name"]: part for part in told["parts"]} for run, told in runs.items()}
    assert not any(run["whole"] for run in runs.values())
    (problem,) = parts["000001"]["raw_records"]["problems"]
    assert "is not what was registered: digest is" in problem
    assert parts["000001"]["raw_records"]["rebuilt"] == []
    assert parts["000001"]["sums"]["rebuilt"] == [
        f"{n}.json" for n in ("processed", "checksums", "stored", "registered")
    ]
    assert parts["000001"]["live"]["rebuilt"] == ["transferred.json", "registered.json"]
    assert site.receipts("000001")["live/transferred.json"]["files"] == []
    assert parts["000002"]["sums"]["problems"] == ["sums: sums: neither in the store nor in staging"]
    assert parts["000003"]["sums"]["rebuilt"] == ["processed.json", "checksums.json", "stored.json"]
    assert "has no entry in the run document for sums at testsite" in parts["000003"]["sums"]["problems"][0]
    assert "there are no live data here, and no entry says that they were" in parts["000004"]["live"]["problems"][0]
    # the workflow makes what is missing, and no more
    site.runs.update_many({"number": {"$in": [2, 3]}}, {"$set": {"processing_status": "pending"}})
    # the others are pending as soon as the invocation has seen that they lack receipts: before its claim or after
    site.configure(runs={"numbers": [2, 3]})
    made = site.snakemake()
    assert made.code == 0, made.output
    assert sorted(made.jobs) == sorted(
        [
            *(f"{step} 000002/sums" for step in ("process", "checksum", "move_out", "register")),
            *("register 000003/sums", "release 000002", "release 000003"),
        ]
    )


def _command(source: str) -> dict[str, Any]:
    line = f"sh -c 'cat {{source}}/{{run}}-{source}-*/*-metadata.json > {{output}}/metadata'"
    return {"sums": {"from": source, "kind": "command", "command": line}}


def test_valid_receipts_stay_and_broken_ones_are_set_aside(make_site: MakeSite, sshd: Sshd) -> None:
    site = make_site(store={"ssh": sshd.host, "ssh_options": sshd.ssh_options, "min_free_gb": 0})
    site.take(1)
    assert site.snakemake().code == 0
    folder = site.state().run("000001")
    kept = (folder / "raw" / "processed.json").read_bytes()
    (folder / "raw" / "stored.json").write_text("{")
    (folder / "sums" / "processed.json").unlink()
    result = straxflow(site, "rebuild", "000001")
    assert result.code == 0, result.output
    assert "rebuilt raw (stored.json), sums (processed.json)" in result.output
    assert (folder / "raw" / "processed.json").read_bytes() == kept
    assert len(list((folder / "raw").glob("stored.json.broken-*"))) == 1
    again = site.snakemake("runs/000001/released.json")
    assert (again.code, again.jobs) == (0, []), again.output
    # a run that somebody works on is left alone
    claim = {"batch": "b", "owner": {"host": "elsewhere", "boot": "b", "pid": 1, "start": 1}, "lease_s": 600}
    now = site.doc(1)["processing_status"]["time"]
    site.runs.update_one({"number": 1}, {"$set": {"straxflow.online.claim": {**claim, "renewed": now}}})
    (folder / "sums" / "processed.json").unlink()
    held = straxflow(site, "rebuild", "1")
    assert held.code == 1
    assert "invocation b works on it" in held.output
