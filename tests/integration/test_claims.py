"""Claims over the wire: each run is worked on by one invocation, whatever happens to the others."""

import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from straxflow import claimfile
from straxflow.batch import KEPT, OWNER
from straxflow.claimfile import Fence
from straxflow.config import Config
from straxflow.errors import ClaimLost, RunDbError
from straxflow.invocation import Invocation
from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from straxflow.lab.wire import counted
from straxflow.owner import Owner
from straxflow.plan import Standing
from straxflow.rundb.claims import Claimer
from straxflow.rundb.client import connect
from straxflow.rundb.entries import Entries
from tests.site import QUICK_PRODUCTS, Site


@pytest.fixture
def site(tmp_path: Path, rundb_server: RunDbServer, sshd: Sshd) -> Iterator[Site]:
    made = Site(tmp_path, rundb_server, sshd)
    yield made
    made.close()


def dead_owner() -> Owner:
    """Somebody of this boot who is gone."""
    here = Owner.current()
    return Owner(here.host, here.boot, here.pid, here.start - 1)


def other_host() -> Owner:
    """Somebody of whom only the lease can tell."""
    here = Owner.current()
    return Owner("elsewhere", here.boot, here.pid, here.start)


def claim(config: Config, batch: str, owner: Owner) -> dict[str, int]:
    """Claim what is pending; token by run."""
    with connect(config) as db:
        taken = Claimer(db, config, "online", batch, owner).claim_pending(lambda _: True, print)
    return {one.run.id: one.token for one in taken}


def _claim_some(files: list[Path], root: Path, name: str, found: Any, go: Any, over: Any) -> None:
    from straxflow.config import load_files

    config = load_files(files, root)
    mine: dict[str, dict[str, int]] = {}
    with connect(config) as db:
        go.wait(120)
        while db.runs.count_documents({"straxflow.online.claim": {"$exists": False}}, limit=1):
            batch = f"{name}_{len(mine)}"
            taken = Claimer(db, config, "online", batch, Owner.current()).claim_pending(lambda _: True, print)
            mine[batch] = {one.run.id: one.token for one in taken}
    found.put(mine)
    over.wait(400)  # the claims of who is gone may be taken at once


@pytest.mark.fault(
    group="two",
    broken="eight processes claim 2000 runs at the same time",
    left="each run claimed by one of them, once",
    next="as ever",
)
@pytest.mark.slow
def test_eight_processes_claim_each_of_2000_runs_once(site: Site) -> None:
    site.document(1)
    first = site.doc(1)
    del first["_id"]
    site.runs.insert_many([{**first, "number": number} for number in range(2, 2001)])
    # nobody renews here
    site.configure(claim={"max_runs": 250, "lease_s": 3600})
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    # none claims before all are there: the first one would have all of them
    found, go, over = context.Queue(), context.Barrier(8), context.Event()
    files = [site.root / "config" / "config.yaml"]
    workers = [context.Process(target=_claim_some, args=(files, site.root, f"b{i}", found, go, over)) for i in range(8)]
    for worker in workers:
        worker.start()
    claimed = {batch: runs for _ in workers for batch, runs in found.get(timeout=400).items()}
    over.set()
    for worker in workers:
        worker.join(30)
    holders = {int(run): (batch, token) for batch, runs in claimed.items() for run, token in runs.items()}
    assert sum(map(len, claimed.values())) == len(holders) == 2000
    told = {d["number"]: d["straxflow"]["online"] for d in site.runs.find()}
    assert holders == {number: (part["claim"]["batch"], part["token"]) for number, part in told.items()}
    assert {token for _, token in holders.values()} == {1}
    assert all(list(runs) == sorted(runs, reverse=True) for runs in claimed.values())
    assert len({batch.partition("_")[0] for batch, runs in claimed.items() if runs}) > 1


def test_a_claim_job_that_is_tried_again_finds_what_it_had(site: Site) -> None:
    site.configure(claim={"max_runs": 2})
    for number in (1, 2, 3):
        site.document(number)
    first = claim(site.config, "mine", Owner.current())
    assert first == claim(site.config, "mine", Owner.current()) == {"000003": 1, "000002": 1}
    assert claim(site.config, "other", Owner.current()) == {"000001": 1}


def test_new_runs_are_claimed_together_and_others_each_by_its_own_state(site: Site) -> None:
    for number in (1, 2, 3, 4):
        site.document(number)
    site.runs.update_one({"number": 2}, {"$set": {"processing_status": "pending"}})
    assert claim(site.config, "first", dead_owner()) == dict.fromkeys(("000004", "000003", "000002", "000001"), 1)
    site.document(5)
    with counted(site.config) as (db, wire):
        taken = Claimer(db, site.config, "online", "second", Owner.current()).claim_pending(lambda _: True, print)
    assert {one.run.id: (one.token, one.taken_from) for one in taken} == {
        "000005": (1, None),
        **dict.fromkeys(("000004", "000003", "000002", "000001"), (2, "first")),
    }
    assert wire.commands.count("update") == 1
    # the state from before both claims
    assert [site.doc(number)["straxflow"]["online"]["claim"]["before"] for number in (1, 2, 5)] == [
        None,
        "pending",
        None,
    ]


def test_a_document_that_takes_no_claim_is_told_and_keeps_no_other_run_back(site: Site) -> None:
    for number in (1, 2, 3):
        site.document(number)
    # `$inc` of what is no number is refused
    site.runs.update_one({"number": 2}, {"$set": {"straxflow.online.token": "two"}})
    told: list[str] = []
    with connect(site.config) as db:
        claimer = Claimer(db, site.config, "online", "mine", Owner.current())
        taken = claimer.claim_pending(lambda _: True, told.append)
        assert {one.run.id: one.token for one in taken} == {"000003": 1, "000001": 1}
        with pytest.raises(RunDbError, match=r"run 000002: its run document does not take the claim: .*non-numeric"):
            claimer.claim_named("000002")
    (text,) = told
    assert text.startswith("run 000002: its run document does not take the claim: ")
    assert text.endswith("; correct it")


def test_a_dead_owners_claim_is_taken_at_once_a_live_ones_after_its_lease(site: Site) -> None:
    site.configure(claim={"lease_s": 3})
    config = site.config
    site.document(1)
    site.document(2)
    assert claim(config, "first", dead_owner()) == {"000001": 1, "000002": 1}
    assert claim(config, "second", other_host()) == {"000001": 2, "000002": 2}
    assert claim(config, "third", Owner.current()) == {}
    with connect(config) as db:
        with pytest.raises(RunDbError, match=r"run 000001: invocation second works on it \(host elsewhere, pid \d+\)"):
            Claimer(db, config, "online", "third", Owner.current()).claim_named("000001")
        time.sleep(2)
        assert Claimer(db, config, "online", "second", other_host()).renew() == 2
        time.sleep(2)
        # renewed, so still held though the first lease is over
        assert claim(config, "third", Owner.current()) == {}
        time.sleep(1.5)
        assert claim(config, "third", Owner.current()) == {"000001": 3, "000002": 3}

        # the second comes back to life: nothing that it does has an effect
        before = site.dump_database()
        stale = Claimer(db, config, "online", "second", other_host())
        assert stale.renew() == 0
        assert stale.held() == []
        for state in ("done", "failed", "pending"):
            assert not stale.release(site.doc(1)["_id"], 2, Standing(state))
        entry = {"type": "raw", "host": "h", "location": "l"}
        with pytest.raises(ClaimLost, match="taken over"):
            Entries(db, config, "online", "000001", "second", 2).add([entry])
        with pytest.raises(ClaimLost, match="taken over"):
            Entries(db, config, "online", "000001", "second", 2).retire(site.doc(1)["data"][0], "no")
        assert site.dump_database() == before


@pytest.mark.fault(
    group="two",
    broken="an owner whose run was taken over wakes up",
    left="what the new owner made: its token refuses the old one's",
    next="as ever",
)
def test_a_stale_owner_publishes_nothing(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config, state = site.config, site.state()
    site.document(1)
    monkeypatch.setenv(OWNER, dead_owner().token())
    monkeypatch.setenv(KEPT, "first")
    Invocation(config, state, "online", "first").claim_batch(tmp_path / "first.json")
    fence = Fence.enter(state, "000001", "first")
    fence.check()
    monkeypatch.setenv(OWNER, Owner.current().token())
    monkeypatch.setenv(KEPT, "second")
    assert [r.run for r in Invocation(config, state, "online", "second").claim_batch(tmp_path / "b.json").runs] == [
        "000001"
    ]
    with pytest.raises(ClaimLost, match="taken over by invocation second"):
        fence.check()
    with pytest.raises(ClaimLost, match="claimed by invocation second"):
        Fence.enter(state, "000001", "first")
    # the first one writes its claim file late: the later claim's stays
    with pytest.raises(ClaimLost, match="claimed again"):
        claimfile.write(state, claimfile.ClaimFile(run="000001", token=1, batch="first", owner={}))
    Fence.enter(state, "000001", "second").check()


def test_an_entry_is_written_once(site: Site) -> None:
    config = site.config
    site.document(1)
    token = claim(config, "mine", Owner.current())["000001"]
    wanted = [{"type": t, "host": "here", "location": f"/store/{t}", "n": 1} for t in ("peaks", "events")]
    with connect(config) as db:
        entries = Entries(db, config, "online", "000001", "mine", token)
        first = entries.add(wanted)
        again = entries.add([{**e, "n": 2} for e in wanted])
        assert first == again == wanted
        assert site.doc(1)["data"][1:] == wanted
        entries.retire(wanted[0], "gone")
        entries.retire(wanted[0], "gone")
    assert [e["type"] for e in site.doc(1)["data"]] == ["live", "events"]
    assert [e["type"] for e in site.doc(1)["deleted_data"]] == ["peaks"]


@pytest.mark.fault(
    group="two",
    broken="two invocations at once",
    left="each run worked on by one of them, each step once",
    next="has nothing to do",
)
@pytest.mark.slow
def test_two_invocations_at_once_share_the_runs(site: Site) -> None:
    for number in range(1, 5):
        site.take(number, "led", 0.5)
    site.configure(claim={"max_runs": 2}, products={"raw": QUICK_PRODUCTS["raw"]})
    with site.background() as one, site.background() as other:
        results = one.wait(), other.wait()
    assert [r.code for r in results] == [0, 0], results
    assert [site.status(n) for n in range(1, 5)] == ["done"] * 4
    for number in range(1, 5):
        done = site.attempts(f"{number:06d}")
        assert len({a.batch for a in done}) == 1
        assert len({(a.product, a.step) for a in done}) == len(done) == 7
        assert len(site.doc(number)["data"]) == 3
    assert len({a.batch for n in range(1, 5) for a in site.attempts(f"{n:06d}")}) == 2
    assert site.scratch() == []


@pytest.mark.slow
def test_naming_a_run_that_another_holds_is_refused(site: Site) -> None:
    site.take(1, "led", 0.5)
    go = site.folder / "go"
    waits = (
        f"sh -c 'until test -e {go}; do sleep 0.1; done; rsync -am --min-size=1 {{source}}/{{run}}/ {{output}}/data'"
    )
    # so long a lease that no renewal shows
    site.configure(products={"raw": {"from": "live", "kind": "command", "command": waits}}, claim={"lease_s": 600})
    with site.background() as holder:
        holder.until(lambda: any(a.step == "process" for a in site.attempts("000001")))
        before = site.doc(1)["straxflow"]["online"]
        refused = site.snakemake("runs/000001/raw/processed.json")
        assert refused.code != 0
        assert "run 000001: invocation " in refused.output
        assert f"works on it (host {Owner.current().host}, pid {holder.process.pid})" in refused.output
        assert refused.jobs == []
        assert "Traceback" not in refused.output
        other = site.snakemake()
        assert (other.code, other.jobs) == (0, [])
        after = site.doc(1)["straxflow"]["online"]
        assert (after["claim"], after["token"]) == (before["claim"], before["token"])
        go.touch()
        result = holder.wait()
    assert result.code == 0, result.output
    assert site.status(1) == "done"
    assert {a.outcome for a in site.attempts("000001")} == {"ok"}
