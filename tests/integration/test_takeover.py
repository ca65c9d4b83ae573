"""A claim changes hands while its first owner stands still, or is dead while its jobs live; and jobs come in pairs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from straxflow.batch import BATCH, OWNER, config_file
from straxflow.invocation import Invocation
from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from straxflow.orphans import processes_of
from straxflow.owner import Owner, process_is_gone
from tests.site import QUICK_PRODUCTS, Site, descendants, wait_until


@pytest.fixture
def site(tmp_path: Path, rundb_server: RunDbServer, sshd: Sshd) -> Iterator[Site]:
    made = Site(tmp_path, rundb_server, sshd)
    yield made
    made.close()


def waiting(site: Site) -> dict[str, Any]:
    """A product of a run that is made as soon as there is a file for it; each make says that it has begun."""
    copy = "rsync -am --min-size=1 {source}/{run}/ {output}/data"
    line = f"touch {site.folder}/begun-{{run}}-$$; until test -e {site.folder}/go-{{run}}; do sleep 0.1; done; {copy}"
    return {"raw": {"from": "live", "kind": "command", "command": f"sh -c '{line}'"}}


def begun(site: Site, run: int) -> list[int]:
    """The processes that have begun to make the product of a run, oldest first."""
    found = sorted(site.folder.glob(f"begun-{run:06d}-*"), key=lambda path: path.stat().st_mtime_ns)
    return [int(path.name.rpartition("-")[2]) for path in found]


def claim(site: Site, number: int) -> dict[str, Any]:
    found: dict[str, Any] = site.doc(number)["straxflow"]["online"].get("claim", {})
    return found


def check_once(site: Site, number: int, token: int) -> None:
    """A run that is done, everything of it once."""
    run, part = f"{number:06d}", site.doc(number)["straxflow"]["online"]
    assert site.status(number) == "done"
    assert (part["token"], "claim" in part, "failures" in part) == (token, False, False)
    assert sorted(e["type"] for e in site.doc(number)["data"] if e["host"] == "testsite") == ["live", "raw"]
    assert len(list((site.folder / "store").glob(f"{run}-*"))) == 1


@pytest.mark.fault(
    group="two",
    broken="all of an invocation is stopped for longer than its lease, and goes on when another one has done its work",
    left="the other one's receipts, data and entries, untouched",
    next="has nothing to do",
)
@pytest.mark.slow
def test_a_stalled_owner_that_goes_on_later_does_no_harm(site: Site) -> None:
    """All of an invocation is stopped for longer than its lease, and goes on when another one has done its work."""
    site.configure(products=waiting(site), claim={"lease_s": 3})
    site.take(1, "led", 0.5)
    with site.background() as first:
        first.until(lambda: begun(site, 1))
        stopped = [first.process.pid, *descendants(first.process.pid)]
        first.see(stopped)
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        earlier = claim(site, 1)["batch"]
        # a batch of its own each time, until the lease is over
        (site.folder / "go-000001").touch()
        result = site.snakemake()
        while claim(site, 1).get("batch") == earlier:
            result = site.snakemake()
        assert result.code == 0, result.output
        check_once(site, 1, token=2)
        document, receipts, store = site.doc(1), site.receipts("000001"), site.dump_files()
        for pid in reversed(stopped):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        ended = first.wait(120)
    assert ended.code != 0
    assert "taken over by invocation" in ended.output
    assert site.doc(1) == document
    assert site.receipts("000001") == receipts
    check_once(site, 1, token=2)
    wait_until(lambda: not site.scratch(), 10)
    assert {p: s for p, s in site.dump_files().items() if p.startswith("store/")} == {
        p: s for p, s in store.items() if p.startswith("store/")
    }
    makes = [(a.batch == earlier, a.outcome) for a in site.attempts("000001") if a.step == "process"]
    assert (False, "ok") in makes
    assert (True, "claim lost") in makes
    assert (True, "ok") not in makes


@pytest.mark.fault(
    group="two",
    broken="a dead invocation's jobs live on beside those of a live one",
    left="the live one's jobs; the dead one's are stopped",
    next="takes over what the dead one had, and leaves the live one's alone",
)
@pytest.mark.slow
def test_a_dead_owners_jobs_are_stopped_a_live_ones_are_not(site: Site) -> None:
    site.configure(products=waiting(site), claim={"lease_s": 600, "max_runs": 1})
    for number in (1, 2):
        site.take(number, "led", 0.5)
    with site.background() as live, contextlib.ExitStack() as stack:
        live.until(lambda: begun(site, 2))  # the newest
        dead = stack.enter_context(site.background())
        dead.until(lambda: begun(site, 1))
        batch, other = claim(site, 1)["batch"], claim(site, 2)["batch"]
        dead.kill()
        third = stack.enter_context(site.background())
        # told apart from those of the live one: the orphans end, before the work begins anew
        third.until(lambda: len(begun(site, 1)) == 2)
        assert processes_of(batch) == []
        assert process_is_gone(begun(site, 1)[0])
        assert begun(site, 2)[0] in processes_of(other)
        (site.folder / "go-000001").touch()
        assert third.wait().code == 0
        assert site.status(2) in ("submitted", "running")
        (site.folder / "go-000002").touch()
        assert live.wait().code == 0
    check_once(site, 1, token=2)
    check_once(site, 2, token=1)
    assert site.scratch() == []
    assert [a.outcome for a in site.attempts("000001") if a.step == "process"][-1] == "ok"


STEPS = (
    ("transfer", "live/transferred.json"),
    ("register_live", "live/registered.json"),
    ("process", "raw/processed.json"),
    ("checksum", "raw/checksums.json"),
    ("move_out", "raw/stored.json"),
    ("register", "raw/registered.json"),
    ("release", "released.json"),
)


@pytest.mark.fault(
    group="two",
    broken="two copies of each job, from transfer to release, are started in the same second",
    left="one product, one entry, one receipt of each; the later copy adopts or yields",
    next="has nothing to do",
)
@pytest.mark.slow
def test_two_copies_of_each_job_in_the_same_second(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.configure(products={"raw": QUICK_PRODUCTS["raw"]}, claim={"lease_s": 600})
    site.take(1, "led", 0.5)
    monkeypatch.setenv(OWNER, Owner.current().token())
    invocation = Invocation(site.config, site.state(), "online", "twice")
    (site.state().folder / "batches").mkdir()
    (site.state().folder / config_file("twice")).write_text(json.dumps(site.settings))
    invocation.claim_targets(["runs/000001/released.json"])
    environment = site.environment({BATCH: "twice", OWNER: os.environ[OWNER]})
    for step, receipt in STEPS:
        words = [str(site.root / "workflow/scripts/straxflow-step"), step, f"runs/000001/{receipt}"]
        copies = [
            subprocess.Popen(
                [*words, f"logs/000001/{step}.{n}.log"], cwd=site.state().folder, env=environment,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for n in (1, 2)
        ]  # fmt: skip
        said = [copy.communicate(timeout=120)[0] for copy in copies]
        assert 0 in [copy.returncode for copy in copies], said
        assert "Traceback" not in "".join(said)
        assert site.receipts("000001")[receipt]["run"] == "000001"
    assert invocation.finish() == {"000001": "done"}
    check_once(site, 1, token=1)
    assert site.scratch() == []
    assert not any(p.name.startswith("000001") for p in (site.folder / "staging").iterdir())
    assert len([a for a in site.attempts("000001") if a.outcome == "ok"]) >= len(STEPS)
