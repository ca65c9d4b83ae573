"""The failure law with real invocations: what is tried again, with how much of it, and who is told."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from straxflow.cli.main import main
from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from straxflow.owner import Owner
from straxflow.plan import Standing
from straxflow.rundb.claims import Claimer, Released
from straxflow.rundb.client import connect
from straxflow.rundb.whynot import why_not
from tests.site import QUICK_PRODUCTS, Site


@pytest.fixture
def site(tmp_path: Path, rundb_server: RunDbServer, sshd: Sshd) -> Iterator[Site]:
    made = Site(tmp_path, rundb_server, sshd)
    yield made
    made.close()


def part(site: Site, number: int) -> dict[str, Any]:
    """straxflow's own part of a document."""
    found: dict[str, Any] = site.doc(number)["straxflow"]["online"]
    return found


def let_pass(site: Site, number: int) -> None:
    """As if the pause of a run were over."""
    site.runs.update_one(
        {"number": number, "straxflow.online.due": {"$exists": True}},
        {"$set": {"straxflow.online.due": site.doc(number)["end"]}},
    )


def hook(site: Site) -> tuple[str, Path]:
    """A program that notes what it is told, and its notes."""
    script, notes = site.folder / "hook.py", site.folder / "notes"
    script.write_text(f"import sys\nopen({str(notes)!r}, 'a').write(sys.stdin.read() + chr(10))")
    return f"{sys.executable} {script} {{run}}", notes


@pytest.mark.slow
def test_a_product_that_fails_is_given_up_and_a_person_gets_it_all(site: Site) -> None:
    flag = site.folder / "flag"
    odd = f"sh -c 'test -e {flag} || {{{{ echo ERROR: no such channel; exit 3; }}}}; cp {flag} {{output}}/flag'"
    on_failure, notes = hook(site)
    site.configure(
        products={
            "raw": QUICK_PRODUCTS["raw"],
            "odd": {"from": "raw", "kind": "command", "command": odd},
            "late": {"from": "odd", "kind": "command", "command": "rsync -am {source}/ {output}/"},
        },
        failures={"fewer_products": {2: ["raw"]}},
        hooks={"on_failure": on_failure},
    )
    site.take(1, "led", 0.5)
    for count in (1, 2):
        failed = site.snakemake()
        assert failed.code != 0
        assert "exit code 3: ERROR: no such channel" in failed.output
        told = part(site, 1)["products_failed"]
        # the profile's retry is no failure of its own
        assert (set(told), told["odd"]["count"], part(site, 1)["failures"]) == ({"odd"}, count, count)
        assert told["odd"]["reason"].endswith("exit code 3: ERROR: no such channel")
        assert site.state().folder.joinpath(told["odd"]["log"]).is_file()
    assert "gave_back" in part(site, 1)

    preview = site.dry_run()
    assert sorted(preview.jobs) == ["release 000001"]
    fewer = site.snakemake()
    assert (fewer.code, fewer.jobs) == (0, ["release 000001"])
    assert site.status(1) == "failed"
    assert site.reason(1) == (
        "raw made; left out: odd: given up after 2 failures: process: run 000001: the command of odd failed: exit code "
        "3: ERROR: no such channel; late: made from odd"
    )
    assert part(site, 1)["products"]["odd"]["state"] == "given up"
    # what it would be made from stays where it is
    kept = site.receipts("000001")["released.json"]["kept"]
    assert "odd, made from it, is not stored" in kept.values()
    assert any(p.name.startswith("000001-raw-") for p in (site.folder / "staging").iterdir())
    nothing = site.snakemake()
    assert (nothing.code, nothing.jobs) == (0, [])

    # the first failure and the last word; the one in between was too soon after
    notes_told = [json.loads(line) for line in notes.read_text().splitlines()]
    assert [(n["run"], n["product"], n["count"], n["state"]) for n in notes_told] == [
        ("000001", "odd", 1, "failed"),
        ("000001", "", 2, "left to a person"),
    ]
    assert "ERROR: no such channel" in notes_told[0]["reason"]
    assert Path(notes_told[0]["log"]).is_file()

    flag.write_text("x")
    site.runs.update_one({"number": 1}, {"$set": {"processing_status.status": "pending"}})
    again = site.snakemake()
    assert again.code == 0, again.output
    assert site.status(1) == "done"
    assert not part(site, 1).keys() & {"failures", "products_failed", "due", "claim"}
    assert not any(p.name.startswith("000001-") for p in (site.folder / "staging").iterdir())
    assert len(list((site.folder / "store").glob("000001-*"))) == 3


def test_a_job_whose_program_ends_first_of_a_cancel_was_stopped(site: Site) -> None:
    # the program gets its signal, and a while later the step
    kill = '(setsid sh -c "sleep 0.4; kill -TERM $PPID") &'  # of another group: its own ends with the program
    command = f"sh -c '{kill} sleep 0.2; kill -TERM $$'"
    site.configure(products={"raw": {"from": "live", "kind": "command", "command": command}})
    site.take(1, size_mb=0.5)
    assert site.snakemake().code == 1
    tries = [a for a in site.attempts("000001") if a.step == "process"]
    assert tries
    assert {a.outcome for a in tries} == {"stopped"}
    assert all("stopped by SIGTERM" in (a.reason or "") for a in tries)
    # nobody asked the invocation to stop: it may happen again, so it is told, and not tried again at once
    assert site.status(1) == "pending"
    assert site.reason(1).startswith("process of raw: stopped by SIGTERM")
    assert part(site, 1)["waits"] == 1
    assert "wait_until" in part(site, 1)


@pytest.mark.slow
def test_without_the_python_of_strax_live_data_are_brought_in_nevertheless(site: Site) -> None:
    site.configure(products={"raw_records": {"from": "live"}}, strax={"python": ["/no/such/python"]})
    site.take(1, size_mb=0.5)
    failed = site.snakemake()
    assert failed.code == 1
    assert "jobs start by themselves, as no server of theirs can be started" in failed.output
    assert {"live/transferred.json", "live/registered.json"} <= set(site.receipts("000001"))
    assert "cannot run '/no/such/python': No such file or directory; check the config" in site.reason(1)


@pytest.mark.slow
def test_a_wrong_configuration_waits_for_a_right_one(site: Site) -> None:
    site.configure(products={"raw": {"from": "live", "kind": "command", "command": "/no/such/program {output}"}})
    site.take(1, "led", 0.5)
    failed = site.snakemake()
    assert failed.code != 0
    assert [a.outcome for a in site.attempts("000001") if a.step == "process"] == ["misconfigured"]
    assert site.status(1) == "failed"
    assert "cannot run '/no/such/program': No such file or directory; check the config" in site.reason(1)
    assert "not tried again until the settings change" in site.reason(1)
    assert not part(site, 1).keys() & {"failures", "due"}
    nothing = site.snakemake()
    assert (nothing.code, nothing.jobs) == (0, [])
    site.configure(products={"raw": QUICK_PRODUCTS["raw"]})
    done = site.snakemake()
    assert done.code == 0, done.output
    assert site.status(1) == "done"


def claimed(site: Site, batch: str) -> dict[int, int]:
    """Claim as an invocation does; token by number."""
    with connect(site.config) as db:
        taken = Claimer(db, site.config, "online", batch, Owner.current()).claim_pending(lambda _: True, print)
    return {one.run.facts.number: one.token for one in taken}


def given_back(site: Site, batch: str, number: int, token: int, state: Any) -> Released:
    with connect(site.config) as db:
        claimer = Claimer(db, site.config, "online", batch, Owner.current())
        found = claimer.release(site.doc(number)["_id"], token, Standing(state, "process of raw: words"))
    assert found is not None
    return found


def test_one_bad_run_starves_nobody_and_is_left_to_a_person(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.configure(claim={"max_runs": 1}, failures={"backoff_s": 60})
    for number in (1, 2, 3, 4):
        site.document(number)
    order = []
    while got := claimed(site, f"b{len(order)}"):
        ((number, token),) = got.items()
        given_back(site, f"b{len(order)}", number, token, "failed" if number == 4 else "done")
        order.append(number)
    assert order == [4, 3, 2, 1]
    for count in range(2, 11):
        # not before its time
        assert claimed(site, "early") == {}
        pause = part(site, 4)["due"] - site.doc(4)["processing_status"]["time"]
        assert 30 * 5 ** min(count - 2, 3) <= pause / timedelta(seconds=1) <= 90 * 5 ** min(count - 2, 3)
        let_pass(site, 4)
        site.document(100 + count)
        # a newer one comes first, also where there is room for one only
        newer = claimed(site, f"n{count}")
        assert set(newer) == {100 + count}
        given_back(site, f"n{count}", 100 + count, newer[100 + count], "done")
        token = claimed(site, f"c{count}")[4]
        assert given_back(site, f"c{count}", 4, token, "failed").settled == (count == 10)
    assert site.reason(4) == "process of raw: words; failed 10 times, so it is left to a person"
    assert "due" not in part(site, 4)
    assert main(["--configfile", str(site.root / "config" / "config.yaml"), "status"]) == 0
    left = "failed and not tried again by themselves: 000004 (straxflow show RUN, straxflow retry RUN)"
    assert left in capsys.readouterr().out
    assert claimed(site, "late") == {}
    site.runs.update_one({"number": 4}, {"$set": {"processing_status": "pending"}})
    assert set(claimed(site, "asked")) == {4}
    assert "failures" not in part(site, 4)


def asking_just_before(site: Site, patched: pytest.MonkeyPatch) -> None:
    """A person makes run 1 pending after its document was read, before it is claimed; once."""
    take, said = Claimer._take, list[object]()

    def asks(self: Claimer, *words: Any, **more: Any) -> Any:
        if not said:
            said.append(site.runs.update_one({"number": 1}, {"$set": {"processing_status": "pending"}}))
        return take(self, *words, **more)

    patched.setattr(Claimer, "_take", asks)


def test_a_persons_word_between_reading_and_claiming_is_not_lost(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.document(1, processing_status={"status": "failed"})
    ours = {"failures": 3, "due": site.doc(1)["end"], "token": 1}
    site.runs.update_one({"number": 1}, {"$set": {"straxflow.online": ours}})
    with connect(site.config) as db:
        claimer = Claimer(db, site.config, "online", "b1", Owner.current())
        with monkeypatch.context() as patched:
            asking_just_before(site, patched)
            assert claimer.claim_pending(lambda _: True, print) == []
        (one,) = claimer.claim_pending(lambda _: True, print)
        assert "failures" not in part(site, 1)
        claimer.release(one.run.object_id, one.token, Standing("failed", "words"))
        assert (site.status(1), part(site, 1)["failures"]) == ("failed", 1)
        with monkeypatch.context() as patched:
            asking_just_before(site, patched)
            one = claimer.claim_named("000001")
        claimer.release(one.run.object_id, one.token, Standing("failed", "words"))
        assert site.doc(1)["processing_status"] == "pending"


def remembered(site: Site, **more: Any) -> None:
    """Run 1 failed twice and is in a pause, as an earlier invocation left it."""
    site.document(1, processing_status={"status": "pending", "batch": "b0", "site": "testsite"})
    ours: dict[str, Any] = {"token": 1, "failures": 2, "gave_back": {"status": "pending", "batch": "b0"}}
    ours["products_failed"] = {"sums": {"count": 2, "step": "process", "reason": "words"}}
    site.runs.update_one({"number": 1}, {"$set": {"straxflow.online": ours | more}})


@pytest.mark.parametrize("word", ["pending", {"status": "pending", "host": "desk"}])
def test_a_persons_word_ends_a_pause(site: Site, word: Any) -> None:
    remembered(site, wait_until=datetime.now(UTC) + timedelta(hours=1))
    assert claimed(site, "early") == {}
    site.runs.update_one({"number": 1}, {"$set": {"processing_status": word}})
    assert claimed(site, "asked") == {1: 2}
    assert not part(site, 1).keys() & {"failures", "products_failed", "wait_until"}


@pytest.mark.parametrize("dies", [False, True])
def test_a_word_changed_while_the_run_is_worked_on_is_a_persons(site: Site, dies: bool) -> None:
    remembered(site)
    token = claimed(site, "b1")[1]
    site.runs.update_one({"number": 1}, {"$set": {"processing_status.status": "pending"}})
    if dies:
        site.runs.update_one({"number": 1}, {"$set": {"straxflow.online.claim.lease_s": -1}})
    else:
        given_back(site, "b1", 1, token, "failed")
        assert site.status(1) == "pending"
    assert claimed(site, "b2") == {1: token + 1}
    assert not part(site, 1).keys() & {"failures", "products_failed"}


def test_who_takes_a_named_run_over_obeys_the_word_before(site: Site) -> None:
    remembered(site)
    site.runs.update_one({"number": 1}, {"$set": {"processing_status": "pending"}})
    with connect(site.config) as db:
        here = Owner.current()
        dead = Owner(here.host, here.boot, here.pid, here.start - 1)
        Claimer(db, site.config, "online", "named", dead).claim_named("000001")
        assert part(site, 1)["failures"] == 2
        (one,) = Claimer(db, site.config, "online", "next", here).claim_pending(lambda _: True, print)
    assert one.left_out == {}
    assert not part(site, 1).keys() & {"failures", "products_failed"}


def test_why_a_run_is_not_claimed_knows_that_the_settings_changed(site: Site) -> None:
    remembered(site, settings="older")
    site.runs.update_one({"number": 1}, {"$set": {"processing_status.status": "failed"}})
    with connect(site.config) as db:
        assert why_not(db, site.config, "online", "000001") == []
    assert claimed(site, "b1") == {1: 2}
