"""What people order by commands: tags, retry, mark; each run guarded, who did it written down."""

import io
import json
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from straxflow import actions, claimfile
from straxflow.cli import main
from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from straxflow.owner import Owner
from straxflow.rundb.client import connect
from tests.site import Site

Run = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def site(tmp_path: Path, rundb_server: RunDbServer, sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("STRAXFLOW_CAMPAIGN", "online")
    monkeypatch.setenv("SUDO_USER", "ada")
    made = Site(tmp_path, rundb_server, sshd)
    made.configure(runs={"min_run_number": 10})
    yield made
    made.close()


@pytest.fixture
def straxflow(site: Site, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command with --json: exit code, what it printed, its messages."""

    def run(*words: str) -> tuple[int, dict[str, Any], str]:
        code = main(["--configfile", str(site.root / "config/config.yaml"), *words, "--json"])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else {}, err

    return run


def claim_of(site: Site, number: int, **owner: Any) -> None:
    """Let an invocation hold a run: of this process, unless told otherwise."""
    with connect(site.config) as db:
        moment = db.now()
    held = {"owner": {**Owner.current().as_dict(), **owner}, "batch": "b1", "lease_s": 60, "named": False}
    held |= {"claimed": moment, "renewed": moment, "before": {"status": "failed", "reason": "broke"}}
    state = {"status": "submitted", "reason": "claimed by straxflow b1", "batch": "b1"}
    changes = {"processing_status": state, "straxflow.online.claim": held, "straxflow.online.token": 4}
    site.runs.update_one({"number": number}, {"$set": changes})


def results(told: dict[str, Any]) -> dict[str, str]:
    return {run["run"]: run["result"] for run in told["runs"]}


def test_tag_and_untag_once_only_with_who_and_why(site: Site, straxflow: Run) -> None:
    site.document(11)
    site.document(12, tags=[{"name": "abandon", "user": "daq"}, "odd"])
    site.document(13, tags="none")
    site.document(9)
    before = site.dump_database()
    code, told, _ = straxflow("tag", "abandon", "11-12", "-n")
    assert code == 0
    assert told["changed"] == 1
    assert site.dump_database() == before

    code, told, _ = straxflow("tag", "abandon", "11", "000012", "13", "9", "77", "--reason", "high  voltage")
    assert code == 1
    assert results(told) == {"000011": "changed", "000012": "same", "000013": "refused"}
    assert any("77: there is no run document" in problem for problem in told["problems"])
    assert any("min_run_number (10)" in problem for problem in told["problems"])
    (tag,) = site.doc(11)["tags"]
    assert (tag["name"], tag["user"]) == ("abandon", "ada")
    assert tag["date"].tzinfo is not None
    assert site.doc(12)["tags"] == before[1]["tags"]
    assert site.doc(9)["tags"] == []
    assert straxflow("tag", "abandon", "11")[1]["changed"] == 0

    # a run that is worked on may be tagged: nothing of its claim is touched
    claim_of(site, 11)
    code, told, _ = straxflow("untag", "abandon", "11-12")
    assert (code, told["changed"]) == (0, 2)
    assert site.doc(11)["tags"] == []
    assert site.doc(12)["tags"] == ["odd"]

    with connect(site.config) as db:
        found = actions.of_run(db, "online", "000011")
        assert [(a.user, a.command, a.reason) for a in found] == [
            ("ada", "untag abandon", None),
            ("ada", "tag abandon", "high voltage"),
        ]
        assert "ada@" in str(found[1])
        assert str(found[1]).endswith("tag abandon: high voltage")
        assert actions.of_run(db, "v5", "000011") == []
        assert len(actions.recent(db, "online")) == 2


def test_a_tag_is_told_from_a_run_and_a_shadow_tags_nothing(site: Site, straxflow: Run) -> None:
    site.document(11)
    for words in (("932", "abandon"), ("@runs.txt", "11"), ("two words", "11"), ("", "11")):
        code, _, err = straxflow("tag", *words)
        assert code == 2, words
    assert "names runs; the tag comes first" in straxflow("tag", "932", "abandon")[2]
    site.configure(shadow={"enabled": True})
    code, _, err = straxflow("tag", "abandon", "11")
    assert code == 2
    assert "shadow" in err
    assert site.doc(11)["tags"] == []


def test_retry_forgets_what_delays_and_leaves_claimed_runs_alone(site: Site, straxflow: Run) -> None:
    with connect(site.config) as db:
        later = db.now() + timedelta(hours=1)
    broke = {"status": "failed", "reason": "broke", "host": "x"}
    delayed = {"online": {"token": 3, "failures": 7, "due": later, "waits": 2, "wait_until": later, "products": {}}}
    site.document(11, processing_status=broke, processing_failed=7, straxflow=delayed)
    site.document(12, processing_status="failed")
    site.document(13, processing_status={"status": "pending"})
    site.document(14, processing_status=broke, tags=[{"name": "abandon"}])
    site.document(15, processing_status=broke)
    claim_of(site, 15)
    code, told, _ = straxflow("retry", "11-15", "--reason", "disk is back")
    assert code == 1
    assert results(told) == {
        "000011": "changed", "000012": "changed", "000013": "same", "000014": "changed", "000015": "refused"
    }  # fmt: skip
    texts = {run["run"]: run["text"] for run in told["runs"]}
    assert "invocation b1 works on it" in texts["000015"]
    assert f"pid {Owner.current().pid}" in texts["000015"]
    assert "while it has the tag abandon" in texts["000014"]
    document = site.doc(11)
    assert document["processing_status"]["status"] == "pending"
    assert document["processing_status"]["reason"] == "tried again by ada: disk is back"
    assert document["straxflow"]["online"] == {"token": 3, "products": {}}
    assert document["processing_failed"] == 0
    assert site.status(15) == "submitted"


def test_retry_all_failed_asks_above_200_runs(
    site: Site, straxflow: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site.document(11)
    one = site.doc(11)
    site.runs.delete_many({})
    del one["_id"]
    site.runs.insert_many([{**one, "number": n, "processing_status": {"status": "failed"}} for n in range(11, 216)])
    site.runs.update_one({"number": 215}, {"$set": {"processing_status.status": "done"}})
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    code, _, err = straxflow("retry", "--all-failed")
    assert code == 2
    assert "204 runs" in err
    assert "give --yes" in err
    assert site.runs.count_documents({"processing_status.status": "pending"}) == 0

    terminal = io.StringIO("n\n")
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdin", terminal)
    code, _, err = straxflow("retry", "--all-failed")
    assert code == 1
    assert "Go on? [y/N]" in err
    assert "nothing was done" in err
    assert straxflow("retry", "--all-failed", "-n")[1]["changed"] == 204

    code, told, _ = straxflow("retry", "--all-failed", "--yes")
    assert (code, told["changed"]) == (0, 204)
    assert site.status(215) == "done"
    assert site.runs.count_documents({"processing_status.status": "pending"}) == 204
    assert straxflow("retry")[0] == 2
    assert straxflow("retry", "11", "--all-failed")[0] == 2


def test_mark_done_stays_and_is_taken_back(site: Site, straxflow: Run) -> None:
    site.document(11, processing_status={"status": "failed"}, straxflow={"online": {"token": 1, "failures": 2}})
    assert straxflow("mark", "11", "--done", "--reason", "  ")[0] == 2
    with pytest.raises(SystemExit):
        straxflow("mark", "11", "--done")
    code, told, _ = straxflow("mark", "11", "--done", "--reason", "by hand in March")
    assert (code, told["changed"]) == (0, 1)
    document = site.doc(11)
    assert document["processing_status"]["status"] == "done"
    assert document["processing_status"]["reason"] == "marked done by ada: by hand in March"
    marked = document["straxflow"]["online"]["marked"]
    assert (marked["by"], marked["state"], marked["reason"]) == ("ada", "done", "by hand in March")
    assert "failures" not in document["straxflow"]["online"]
    assert straxflow("mark", "11", "--done", "--reason", "again")[1]["changed"] == 0

    code, told, _ = straxflow("mark", "11", "--pending", "--reason", "damaged store")
    assert (code, told["changed"]) == (0, 1)
    document = site.doc(11)
    assert document["processing_status"]["reason"] == "marked pending by ada: damaged store"
    assert "marked" not in document["straxflow"]["online"]


def test_mark_ends_a_dead_claim_with_all_that_is_left_of_it(site: Site, straxflow: Run) -> None:
    site.document(11)
    claim_of(site, 11, start=1)
    state = site.state()
    (state.run("000011")).mkdir(parents=True)
    file = claimfile.ClaimFile(run="000011", token=4, batch="b1", owner=Owner.current().as_dict())
    claimfile.write(state, file)
    fence = claimfile.Fence.enter(state, "000011", "b1")
    code, told, _ = straxflow("mark", "11", "--done", "--reason", "given up")
    assert (code, told["changed"]) == (0, 1)
    part = site.doc(11)["straxflow"]["online"]
    assert "claim" not in part
    assert part["token"] == 5
    assert site.status(11) == "done"
    with pytest.raises(Exception, match="taken over"):
        fence.check()


def test_of_another_campaign_only_its_own_state_is_written(site: Site, straxflow: Run) -> None:
    site.init("v5")
    site.document(11, processing_status={"status": "done"})
    code, told, _ = straxflow("--campaign", "v5", "mark", "11", "--pending", "--reason", "new gains")
    assert (code, told["campaign"], told["changed"]) == (0, "v5", 1)
    assert site.status(11) == "done"
    assert site.status(11, "v5") == "pending"
    with connect(site.config) as db:
        assert [action.command for action in actions.of_run(db, "v5", "000011")] == ["mark pending"]


def test_the_switch(site: Site, straxflow: Run) -> None:
    assert straxflow("switch", "status")[0] == 0
    code, told, _ = straxflow("switch", "off", "-n")
    assert (code, told["on"]) == (0, True)
    code, told, _ = straxflow("switch", "off", "--reason", "maintenance")
    assert (code, told["on"], told["reason"]) == (0, False, "maintenance")
    code, told, _ = straxflow("switch", "status")
    assert (code, told["on"]) == (1, False)
    assert "no run is claimed" in told["text"]
    assert straxflow("switch", "on")[1]["on"]
    with connect(site.config) as db:
        assert [action.command for action in actions.recent(db, "online")] == ["switch on", "switch off"]


def test_text_output_and_a_database_that_is_away(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.document(11)
    config = str(site.root / "config/config.yaml")
    assert main(["--configfile", config, "tag", "x", "11", "77"]) == 1
    out, err = capsys.readouterr()
    assert "run 000011: tagged x" in out
    assert "77: there is no run document of it" in err
    site.configure(rundb={"uri": "mongodb://127.0.0.1:1/", "timeout_s": 0.5})
    assert main(["--configfile", config, "tag", "x", "11"]) == 1
    assert "does not answer" in capsys.readouterr().err
