"""The whole workflow without a run database: runs are found in the DAQ's folders, over real ssh too."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from straxflow.cli import main
from straxflow.lab.sshd import Sshd
from straxflow.owner import Owner
from straxflow.rundb.claims import Claimer
from straxflow.rundb.client import connect
from tests.folder_site import FolderSite
from tests.site import wait_until

FORK = multiprocessing.get_context("fork")
HANGS = {"raw": {"from": "live", "kind": "command", "command": "sleep 600"}}
SLOW = {"raw": {"from": "live", "kind": "command", "command": "sh -c 'sleep 3; cp -r {source}/{run} {output}/data'"}}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[FolderSite]:
    yield FolderSite(tmp_path)


def straxflow(site: FolderSite, *words: str) -> Any:
    return site.command("straxflow", "--configfile", str(site.root / "config" / "config.yaml"), *words)


@pytest.mark.slow
def test_preview_work_name_and_repeat(tmp_path: Path, sshd: Sshd) -> None:
    site = FolderSite(tmp_path, sshd)
    for number in (1, 2):
        site.take(number, "led", 0.5)
    (site.folder / "daq" / "000003").mkdir()  # is being taken
    before = site.dump_files()
    preview = site.dry_run()
    assert "2 pending runs would be claimed" in preview.output, preview.output
    assert site.dump_files() == before

    result = site.snakemake()
    assert result.code == 0, result.output
    assert [site.status(n) for n in (1, 2)] == ["done", "done"]
    assert sorted((e["type"], e["host"]) for e in site.doc(1)["data"]) == [
        ("live", "test-daq"), ("live", "testsite"), ("raw", "testsite"),
    ]  # fmt: skip
    assert "claimed 0 pending runs" in site.snakemake().output

    # a receipt that is gone is made again by its name, from what is there
    site.forget("000001", "raw/registered.json")
    named = site.snakemake("runs/000001/raw/registered.json")
    assert named.code == 0, named.output
    assert "register 000001/raw" in named.jobs
    assert len(site.doc(1)["data"]) == 3
    wrong = site.snakemake("runs/000009/raw/registered.json")
    assert "run 000009: there is no run document of it in runs in" in wrong.output

    status = straxflow(site, "status", "--json")
    assert {r["run"]: r["state"] for r in json.loads(status.output)["runs"]} == {"000001": "done", "000002": "done"}
    (site.folder / "daq" / "000003" / "THE_END").mkdir()
    site.leave_facts(3, {"mode": "led"})
    assert "1 pending, 1 of them not yet here" in straxflow(site, "status").output
    check = straxflow(site, "check")
    assert "discovery       all folders were read" in check.output, check.output
    assert "runs            1 pending, 0 claimed" in check.output
    assert "all there already" in straxflow(site, "init").output

    # the DAQ is away: nothing new is found, and that is said
    site.configure(daq={"folder": str(site.folder / "elsewhere")})
    check = straxflow(site, "check")
    assert check.code == 1
    assert "new runs are not looked for" in check.output


@pytest.mark.slow
def test_a_killed_invocation_is_taken_over_and_two_share_the_runs(site: FolderSite) -> None:
    for number in (1, 2):
        site.take(number, "led", 0.5)
    site.configure(products=HANGS)
    with site.background() as first:
        first.until(lambda: any(a.step == "process" for a in site.attempts("000001")))
        assert "claimed 0 pending runs" in site.snakemake().output
        first.kill()
    for number in (3, 4):
        site.take(number, "led", 0.5)
    site.configure(claim={"max_runs": 2}, products=SLOW)
    with site.background() as one:
        one.until(lambda: "claimed 2 pending runs" in one.output)
        with site.background() as two:
            assert two.wait().code == 0, two.output
            assert "claimed 2 pending runs" in two.output, one.output + two.output
        assert one.wait().code == 0, one.output
    assert [site.status(n) for n in (1, 2, 3, 4)] == ["done"] * 4
    assert sorted({name.split("-")[0] for name in site.products()}) == ["000001", "000002", "000003", "000004"]
    assert all("claim" not in site.doc(n)["straxflow"]["online"] for n in (1, 2, 3, 4))
    for number in (3, 4):
        assert [a.step for a in site.attempts(f"{number:06d}")].count("process") == 1
    assert site.scratch() == []


@pytest.mark.slow
def test_interrupted_runs_are_pending_again(site: FolderSite) -> None:
    site.take(1, "led", 0.5)
    site.configure(products=SLOW)
    with site.background() as one:
        one.until(lambda: any(a.step == "process" for a in site.attempts("000001")))
        one.process.send_signal(signal.SIGTERM)
        one.wait()
    wait_until(lambda: site.status(1) == "pending")
    assert site.snakemake().code == 0
    assert site.status(1) == "done"


@pytest.mark.slow
def test_a_lost_file_is_made_anew_and_no_data_with_it(site: FolderSite) -> None:
    for number in (1, 2):
        site.take(number, "led", 0.5)
    assert site.snakemake().code == 0
    before = site.products()
    for file in (site.folder / "state").glob("runs.sqlite*"):
        file.unlink()
    gone = site.snakemake()
    assert gone.code == 1
    assert "runs.sqlite: there is no such file: is the disk mounted? straxflow init makes it" in gone.output
    assert "made file of runs" in straxflow(site, "init").output
    tries = len(site.attempts("000001"))
    again = site.snakemake()
    assert again.code == 0, again.output
    assert "claimed 2 pending runs" in again.output
    assert [site.status(n) for n in (1, 2)] == ["done", "done"]
    assert len(site.attempts("000001")) == tries
    assert site.products() == before
    # the entries are in the receipts, and are written again when they are asked for
    assert site.snakemake("runs/000001/raw/registered.json", "-R", "register").code == 0
    assert [e["type"] for e in site.doc(1)["data"]] == ["live", "raw"]


@pytest.mark.slow
def test_a_watcher_finds_new_runs_and_another_takes_over(site: FolderSite) -> None:
    words = ["straxflow", "--configfile", str(site.root / "config" / "config.yaml"), "watch"]
    site.configure(watch={"poll_s": 0.5})
    with site.background(argv=words) as first:
        first.until(lambda: "watching campaign online" in first.output)
        site.take(1, "led", 0.5)
        first.until(lambda: site.status(1) == "done", timeout_s=120)
        with site.background(argv=words) as second:
            second.until(lambda: "another watcher acts" in second.output)
            first.process.send_signal(signal.SIGTERM)
            assert first.wait().code == 0
            site.take(2, "led", 0.5)
            second.until(lambda: site.status(2) == "done", timeout_s=120)
            second.process.send_signal(signal.SIGTERM)
            assert second.wait().code == 0
    assert [a.step for a in site.attempts("000002")].count("process") == 1


def _claim_all(config: Any, batch: str, out: Any, over: Any) -> None:
    with connect(config) as db:
        claimer = Claimer(db, config, "online", batch, Owner.current())
        out.put([one.run.id for one in claimer.claim_pending(lambda _: True, lambda _: None)])
    over.wait(240)  # the claims of who is gone may be taken at once


def test_eight_claimers_find_and_claim_each_run_once(site: FolderSite) -> None:
    total = 120
    for number in range(1, total + 1):
        (site.folder / "daq" / f"{number:06d}" / "THE_END").mkdir(parents=True)
        site.leave_facts(number, {"mode": "led"})
    site.configure(claim={"max_runs": 40})
    out, over = FORK.Queue(), FORK.Event()
    workers = [FORK.Process(target=_claim_all, args=(site.config, f"b{i}", out, over)) for i in range(8)]
    for worker in workers:
        worker.start()
    claimed = [out.get(timeout=240) for _ in workers]
    over.set()
    for worker in workers:
        worker.join()
    assert sorted(run for mine in claimed for run in mine) == [f"{n:06d}" for n in range(1, total + 1)]
    assert {d["straxflow"]["online"]["token"] for d in site.runs.find()} == {1}


@pytest.mark.slow
def test_several_experiments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = {"from": "live", "kind": "command", "command": "cp -r {source}/{run} {output}/data"}
    site = FolderSite(
        tmp_path,
        run_id="{experiment}_r{number:04d}",
        experiments="ALL",
        daq={"folder": f"{tmp_path}/daq/{{experiment}}/xtc", "run_folder": "r{number:04d}"},
        discovery={"ended": None, "quiet_s": 1, "facts_file": None},
        transfer={"check": False},
        products={"copied": copy},
    )
    for experiment in ("xppa1", "mfxb2"):
        for number in (1, 2):
            run = tmp_path / "daq" / experiment / "xtc" / f"r{number:04d}"
            run.mkdir(parents=True)
            (run / "events.xtc").write_text(f"{experiment} {number}")
            os.utime(run / "events.xtc", (1.7e9 + number,) * 2)

    def told(*words: str, code: int = 0) -> str:
        found = main(["--configfile", str(site.root / "config" / "config.yaml"), *words])
        said = capsys.readouterr()
        assert found == code, said
        return said.out + said.err

    # every command knows which run of which experiment is meant, found as they are
    listed = json.loads(told("runs", "--json"))["runs"]
    assert sorted(r["run"] for r in listed) == ["mfxb2_r0001", "mfxb2_r0002", "xppa1_r0001", "xppa1_r0002"]
    assert [r["run"] for r in json.loads(told("runs", "--range", "xppa1_r0002", "--json"))["runs"]] == ["xppa1_r0002"]
    assert len(json.loads(told("runs", "--range", "2", "--json"))["runs"]) == 2
    assert "4 runs" in told("plan")
    assert "tagged abandon" in told("tag", "abandon", "mfxb2_r0002")
    assert "mfxb2_r0002: marked done" in told("mark", "mfxb2_r0002", "--done", "--reason", "by hand")
    assert "there is no run document of it" in told("mark", "mfxb2_r0009", "--done", "--reason", "-", code=1)
    assert "is off" in told("switch", "off", "--reason", "test")
    assert "is on" in told("switch", "on")
    assert "which would claim 3 runs" in told("watch", "--dry-run")

    result = site.snakemake()
    assert result.code == 0, result.output
    assert "claimed 3 pending runs" in result.output
    stored = {p.parent.parent.name[:11]: p.read_text() for p in (tmp_path / "store").rglob("events.xtc")}
    assert stored == {"xppa1_r0001": "xppa1 1", "xppa1_r0002": "xppa1 2", "mfxb2_r0001": "mfxb2 1"}
    for document in site.runs.find({"data.type": "copied"}):
        entries = [e["location"] for e in document["data"] if e["type"] == "copied"]
        assert len(entries) == 1
        assert f"/{document['experiment']}_r{document['number']:04d}-copied" in entries[0]
    states = {r["run"]: r["state"] for r in json.loads(told("runs", "--json"))["runs"]}
    assert states == dict.fromkeys(states, "done")
    assert "register" in told("show", "xppa1_r0001")
    assert "verified" in told("show", "xppa1_r0001", "--verify")
    assert "register of copied" in told("logs", "xppa1_r0001")
    assert "nothing to rebuild" in told("rebuild", "-n", "xppa1_r0001")
    for quiet in ("status", "stats"):
        told(quiet)
    assert "xppa1_r0002: pending again" in told("retry", "xppa1_r0002")
    site.forget("mfxb2_r0001", "copied/registered.json")
    assert site.snakemake("runs/mfxb2_r0001/copied/registered.json").code == 0
