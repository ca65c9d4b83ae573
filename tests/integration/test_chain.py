"""Whole chains by the literal command line: rsync over ssh, strax, a run database over the wire."""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from straxflow.config.sections.places import Tunnel as TunnelSettings
from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from straxflow.rundb.client import connect
from straxflow.rundb.tunnel import Tunnel
from tests.site import QUICK_PRODUCTS, STRAX_PRODUCTS, Site, wait_until

MakeSite = Callable[..., Site]
SECRET = "s3cret-of-the-test"


@pytest.fixture
def make_site(tmp_path: Path, rundb_server: RunDbServer, sshd: Sshd) -> Iterator[MakeSite]:
    """Makes sites; their databases are dropped at the end."""
    sites: list[Site] = []

    def make(**settings: Any) -> Site:
        sites.append(Site(tmp_path / f"site{len(sites)}", rundb_server, sshd, settings=settings))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a filesystem of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], capture_output=True).returncode == 0
    if not mounted:
        pytest.skip("only root can mount a filesystem")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def entries(site: Site, number: int, host: str = "testsite") -> dict[str, dict[str, Any]]:
    found = [e for e in site.doc(number)["data"] if e["host"] == host]
    assert len(found) == len({e["type"] for e in found})
    return {e["type"]: e for e in found}


def texts(*folders: Path) -> Iterator[tuple[Path, str]]:
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and path.suffix in (".log", ".json", ".tsv", ".txt", ".yaml"):
                yield path, path.read_text(errors="replace")


@pytest.mark.slow
def test_from_daq_to_registered_data_and_again(make_site: MakeSite) -> None:
    site = make_site(products=STRAX_PRODUCTS, release={"live": "drop"})
    taken = site.take(1, size_mb=3)
    site.take(2, "led", 0.5)
    first = site.snakemake(env={"STRAXFLOW_RUNDB_PASSWORD": SECRET})
    assert first.code == 0, first.output
    assert [site.status(1), site.status(2)] == ["done", "done"]

    receipts = site.receipts("000001")
    steps = ("processed", "checksums", "stored", "registered")
    products = ("raw_records", "peaks", "events")
    assert set(receipts) == {"run.json", "released.json", "live/transferred.json", "live/registered.json"} | {
        f"{product}/{step}.json" for product in products for step in steps
    }
    assert receipts["live/transferred.json"]["check"]["records"] == taken.records
    made = receipts["raw_records/processed.json"]
    assert made["records_in"] == made["records_out"] == taken.records
    assert {a.outcome for a in site.attempts("000001")} == {"ok"}
    assert "led_calibration/registered.json" in site.receipts("000002")
    assert not any("events" in name for name in site.receipts("000002"))

    registered = entries(site, 1)
    assert set(registered) == set(products)
    for name, entry in registered.items():
        folder = Path(entry["location"])
        assert folder == site.folder / "store" / f"000001-{name}-{entry['lineage_hash']}"
        assert entry["meta"]["lineage_hash"] == entry["lineage_hash"]
        assert entry["file_count"] == len(list(folder.iterdir()))
        sums = site.state().run("000001") / name / "xxh128sums.txt"
        check = site.command("sh", "-c", f"cd {site.folder}/store && xxhsum -q -c {sums}")
        assert check.code == 0, check.output
    # the DAQ's copy and the store's were read back, so the live copy here could go
    gone = {e["type"]: e for e in site.doc(1)["deleted_data"]}
    assert gone["live"]["host"] == "testsite"
    assert not (site.folder / "live" / "000001").exists()
    assert (site.folder / "daq" / "000001" / "THE_END").exists()
    assert not any(p.name[0] != "." for p in (site.folder / "staging").iterdir())
    assert site.scratch() == []
    key = f"{site.sshd.folder}/user_key"
    for path, text in texts(site.state().folder, site.root / ".snakemake"):
        assert SECRET not in text, path
        if path.match("batches/*.config.json"):
            # names the key, as the configuration does, for the jobs of this user alone
            assert path.stat().st_mode & 0o777 == 0o600
        else:
            assert key not in text, path

    before = site.dump_database(), site.dump_files()
    second = site.snakemake()
    assert (second.code, second.jobs) == (0, [])
    after = site.dump_files()
    new = set(after) - set(before[1])
    assert {n.split("/")[2] for n in new} <= {"batches", "logs", "benchmarks"}
    assert {n: after[n] for n in before[1]} == before[1]
    assert site.dump_database() == before[0]

    site.take(3, "led", 0.5)
    third = site.snakemake()
    assert third.code == 0, third.output
    assert {job.split()[1].split("/")[0] for job in third.jobs} == {"000003"}
    assert site.status(3) == "done"


@pytest.mark.slow
def test_a_remote_store_and_a_source_that_is_only_there(make_site: MakeSite, sshd: Sshd) -> None:
    site = make_site(
        products={"raw_records": {"from": "live"}, "all": {"from": "raw_records", "targets": ["peaks", "events"]}}
    )
    site.configure(
        store={"ssh": sshd.host, "ssh_options": sshd.ssh_options, "folder": str(site.folder / "far"), "hosts": ["far"]},
        release={"live": "drop"},
    )
    site.init()
    site.take(1)
    result = site.snakemake()
    assert result.code == 0, result.output
    assert site.status(1) == "done"
    assert set(entries(site, 1, "far")) == {"raw_records", "peaks", "events"}
    made = site.receipts("000001")["all/processed.json"]
    assert set(made["targets"]) == {"peaks", "events"}
    assert not (site.folder / "live" / "000001").exists()
    before = site.products("far")

    site.forget("000001", *[f"all/{n}.json" for n in ("processed", "checksums", "stored", "registered")])
    for folder in [*(site.folder / "far").glob("000001-peaks-*"), *(site.folder / "far").glob("000001-events-*")]:
        folder.rename(site.folder / f"away-{folder.name}")
    again = site.snakemake("runs/000001/all/registered.json")
    assert again.code == 0, again.output
    assert again.jobs == [f"{rule} 000001/all" for rule in ("process", "checksum", "move_out", "register")]
    assert "bringing 000001-raw_records" in (site.state().folder / "logs/000001/all.process.log").read_text()
    assert site.products("far") == before
    assert len(entries(site, 1, "far")) == 3
    assert site.scratch() == []


def test_a_store_on_another_filesystem_and_sha256(make_site: MakeSite, other_disk: Path) -> None:
    site = make_site(checksum="sha256")
    site.configure(store={"folder": str(other_disk / "store")}, release={"staging": "keep"})
    site.init()
    site.take(1, "led", 0.5)
    result = site.snakemake()
    assert result.code == 0, result.output
    sums = site.state().run("000001") / "raw" / "sha256sums.txt"
    for folder in (other_disk / "store", site.folder / "staging"):
        check = site.command("sh", "-c", f"cd {folder} && sha256sum --quiet -c {sums}")
        assert check.code == 0, check.output
    assert site.receipts("000001")["raw/stored.json"]["location"] == str(other_disk / "store")
    assert not any(p.name.startswith(".incoming") for p in (other_disk / "store").iterdir())


def test_a_failed_target_is_rerun_by_its_name(make_site: MakeSite) -> None:
    site = make_site(failures={"backoff_s": 3600})
    flag = site.folder / "flag"
    site.configure(
        products=QUICK_PRODUCTS | {"odd": {"from": "raw", "kind": "command", "command": f"cp {flag} {{output}}/flag"}}
    )
    site.take(1, size_mb=0.5)
    site.take(2, "led", 0.5)
    flag.write_text("")
    flag.unlink()
    failed = site.snakemake()
    assert failed.code != 0
    assert "the command of odd failed: exit code 1: cp: cannot stat " in failed.output
    assert [site.status(1), site.status(2)] == ["failed", "failed"]
    assert "process of odd" in site.reason(1)
    assert "/logs/000001/odd.process" in site.reason(1)
    assert "sums/registered.json" in site.receipts("000001")
    # a retry of the profile, both reported
    assert [a.outcome for a in site.attempts("000001") if a.product == "odd"] == ["failed", "failed"]
    assert site.scratch() == []

    flag.write_text("x")
    again = site.snakemake("runs/000001/odd/registered.json")
    assert again.code == 0, again.output
    assert again.jobs == [f"{rule} 000001/odd" for rule in ("process", "checksum", "move_out", "register")]
    assert site.status(2) == "failed"


def test_one_target_alone(make_site: MakeSite) -> None:
    site = make_site()
    site.take(1, size_mb=0.5)
    site.take(2, size_mb=0.5)
    result = site.snakemake("runs/000001/sums/registered.json")
    assert result.code == 0, result.output
    assert set(site.receipts("000001")) == {
        "run.json", "live/transferred.json", "raw/processed.json",
        *(f"sums/{n}.json" for n in ("processed", "checksums", "stored", "registered")),
    }  # fmt: skip
    assert site.receipts("000002") == {}
    assert site.status(2) is None
    # it is given back as it was: what else is to be done is for a later invocation
    assert site.status(1) is None
    assert "claim" not in site.doc(1)["straxflow"]["online"]


def test_a_done_run_set_to_pending_is_made_again_where_it_does_not_hold(make_site: MakeSite) -> None:
    site = make_site()
    site.take(1, size_mb=0.5)
    site.take(2, size_mb=0.5)
    assert site.snakemake().code == 0
    before = site.products()
    for folder in (site.folder / "store").glob("000001-sums-*"):
        folder.rename(site.folder / folder.name)
    registered = entries(site, 1)
    # runs 1 and 2 are wanted again: the one lost a product, the other is whole
    site.runs.update_many({}, {"$set": {"processing_status": "pending"}})
    again = site.snakemake()
    assert again.code == 0, again.output
    steps = ("process", "checksum", "move_out", "register")
    assert again.jobs == [f"{step} 000001/sums" for step in steps] + ["release 000001"]
    assert site.products() == before
    assert [site.status(1), site.status(2)] == ["done", "done"]
    assert entries(site, 1) == registered
    assert site.scratch() == []


def test_damaged_live_data_fail_by_name_and_other_runs_go_on(make_site: MakeSite) -> None:
    site = make_site()
    for number in (1, 2, 3):
        site.take(number, size_mb=1)
    flipped = sorted((site.folder / "daq" / "000002" / "000001").iterdir())[0]
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 0x10
    flipped.write_bytes(data)
    missing = sorted((site.folder / "daq" / "000003" / "000002_pre").iterdir())[0]
    missing.unlink()
    result = site.snakemake()
    assert result.code != 0
    assert [site.status(n) for n in (1, 2, 3)] == ["done", "failed", "failed"]
    assert f"000001/{flipped.name}" in site.reason(2)
    assert "000002_pre" in site.reason(3)
    for run in ("000002", "000003"):
        # trying again in the same invocation is of no use, and is not done
        assert [(a.step, a.outcome) for a in site.attempts(run)] == [("transfer", "damaged")]
        assert not (site.folder / "live" / run).exists()
    # nobody but a person can mend it: it is not due again by itself
    assert site.dry_run().jobs == []


def test_a_run_still_being_written_waits_uncounted(make_site: MakeSite) -> None:
    site = make_site(transfer={"wait_s": 0})
    site.take(1, size_mb=0.5)
    end = site.folder / "daq" / "000001" / "THE_END"
    kept = end.rename(site.folder / "THE_END")
    early = site.snakemake()
    assert "still being written" in early.output
    assert site.status(1) == "pending"
    assert "failures" not in site.doc(1)["straxflow"]["online"]
    assert [a.outcome for a in site.attempts("000001")] == ["retry"]
    kept.rename(end)
    time.sleep(1.1)
    later = site.snakemake()
    assert later.code == 0, later.output
    assert site.status(1) == "done"
    assert site.scratch() == []


def test_a_campaign_beside_online(make_site: MakeSite) -> None:
    site = make_site()
    site.take(1, size_mb=0.5)
    assert site.snakemake().code == 0
    online = site.dump_files(), site.doc(1)
    v5 = {"STRAXFLOW_CAMPAIGN": "v5"}
    site.init("v5")
    raw, sums = QUICK_PRODUCTS["raw"], QUICK_PRODUCTS["sums"]
    site.configure(products={"raw": raw, "sums": {**sums, "command": sums["command"].replace("cksum", "md5sum")}})
    nothing = site.dry_run(env=v5)
    assert (nothing.code, nothing.jobs) == (0, [])
    site.runs.update_one({"number": 1}, {"$set": {"straxflow.v5.processing_status": "pending"}})
    assert site.dry_run().jobs == []
    result = site.snakemake(env=v5)
    assert result.code == 0, result.output
    assert (site.status(1), site.status(1, "v5")) == ("done", "done")
    assert set(site.receipts("000001", "v5")) == set(site.receipts("000001"))
    after = site.dump_files()
    assert {n: after[n] for n in online[0] if n.startswith(("state/online/runs", "store"))} == {
        n: v for n, v in online[0].items() if n.startswith(("state/online/runs", "store"))
    }
    versions = [e for e in site.doc(1)["data"] if e["type"] == "sums"]
    assert sorted(e["campaign"] for e in versions) == ["online", "v5"]
    assert len({e["location"] for e in versions}) == 2
    assert site.doc(1)["processing_status"] == online[1]["processing_status"]


def test_a_database_behind_an_ssh_tunnel(make_site: MakeSite, sshd: Sshd, rundb_server: RunDbServer) -> None:
    site = make_site()
    site.configure(
        rundb={
            "uri": "mongodb://not.reachable.invalid:27017/",
            "tunnel": {"ssh": sshd.host, "ssh_options": sshd.ssh_options, "remote_host": "127.0.0.1",
                       "remote_port": rundb_server.port},
        }
    )  # fmt: skip
    site.take(1, "led", 0.5)
    result = site.snakemake()
    assert result.code == 0, result.output
    assert site.status(1) == "done"
    forward = f"127.0.0.1:{rundb_server.port}"
    assert not [c for c in command_lines() if forward in c and "-L" in c], "a tunnel was left open"


@pytest.mark.fault(
    group="network",
    broken="the ssh tunnel to the run database is cut",
    left="receipts and data",
    next="needs none: the tunnel is opened again",
)
def test_a_cut_tunnel_is_reopened(make_site: MakeSite, sshd: Sshd, rundb_server: RunDbServer) -> None:
    site = make_site()
    site.document(1)
    site.configure(
        rundb={
            "tunnel": {"ssh": sshd.host, "ssh_options": sshd.ssh_options, "remote_host": "127.0.0.1",
                       "remote_port": rundb_server.port},
        }
    )  # fmt: skip
    with connect(site.config) as db:
        assert db.runs.count_documents({}) == 1
        cut = [int(p.parent.name) for p in Path("/proc").glob("[0-9]*/cmdline") if is_tunnel(p, rundb_server.port)]
        assert cut
        for pid in cut:
            os.kill(pid, 9)

        def answers() -> bool:
            try:
                return db.runs.count_documents({}) == 1
            except Exception:
                return False

        wait_until(answers, 20)
        assert not set(cut) & {
            int(p.parent.name) for p in Path("/proc").glob("[0-9]*/cmdline") if is_tunnel(p, rundb_server.port)
        }


def test_a_tunnel_that_cannot_open_says_so(sshd: Sshd) -> None:
    from straxflow.errors import StraxflowError

    tunnel = Tunnel(TunnelSettings(ssh="nobody_here@127.0.0.1", ssh_options=sshd.ssh_options), 1)
    with pytest.raises(StraxflowError, match="does not open"):
        tunnel.open()


def command_lines() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


def is_tunnel(path: Path, port: int) -> bool:
    try:
        words = path.read_bytes().split(b"\0")
    except OSError:
        return False
    return words[0] == b"ssh" and any(w.endswith(f":127.0.0.1:{port}".encode()) for w in words)
