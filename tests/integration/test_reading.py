"""The reading commands on one site with runs that are done, damaged, waiting, new, held, malformed and being taken."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bson.datetime_ms import DatetimeMS

from straxflow.cli import main
from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from straxflow.owner import Owner
from straxflow.receipts import Processed
from tests.site import ROOT, Site, wait_until

Straxflow = Callable[..., tuple[int, Any]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, rundb_server: RunDbServer, sshd: Sshd) -> Iterator[Site]:
    """Runs 1 and 2 (led) are done, 3 is damaged, 4 waits, 5 is malformed, 6 is held, 7 is being taken."""
    made = Site(
        tmp_path_factory.mktemp("reading"),
        rundb_server,
        sshd,
        settings={"transfer": {"wait_s": 0}, "failures": {"backoff_s": 600}},
    )
    made.take(1)
    made.take(2, "led", 0.5)
    made.take(3)
    shutil.rmtree(made.folder / "daq/000003/000000")
    (made.folder / "daq/000004").mkdir()
    made.document(4)
    made.document(5, start="yesterday")
    made.document(6, processing_status="pending", tags=[{"name": "abandon", "user": "ann", "date": datetime.now(UTC)}])
    made.document(7, end=None)
    result = made.snakemake()
    assert [made.status(n) for n in (1, 2, 3, 4)] == ["done", "done", "failed", "pending"], result.output
    yield made
    made.close()


@pytest.fixture
def straxflow(site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Straxflow:
    """Runs a command in this process; its exit code and what it printed (read, if it is JSON)."""
    monkeypatch.delenv("STRAXFLOW_CAMPAIGN", raising=False)
    capsys.readouterr()

    def call(*words: str, away: bool = False) -> tuple[int, Any]:
        files = [str(site.root / "config/config.yaml")]
        if away:
            other = site.folder / "away.yaml"
            other.write_text("rundb: {uri: 'mongodb://127.0.0.1:9/', timeout_s: 0.3}\n")
            files.append(str(other))
        code = main(["--configfile", *files, *words])
        out, err = capsys.readouterr()
        return code, json.loads(out) if "--json" in words and not err else out + err

    return call


def runs_of(found: Any) -> list[int]:
    return [row["number"] for row in found["runs"]]


def test_runs_by_state_mode_range_and_tag(straxflow: Straxflow) -> None:
    code, found = straxflow("runs", "--json")
    assert (code, runs_of(found), found["more"]) == (0, [7, 6, 5, 4, 3, 2, 1], False)
    rows = {row["number"]: row for row in found["runs"]}
    states = {number: row["state"] for number, row in rows.items()}
    assert states == {1: "done", 2: "done", 3: "failed", 4: "waiting", 5: "new", 6: "held", 7: "taking"}
    assert rows[1]["products"] == ["raw", "sums"]
    assert rows[2]["products"] == ["raw"]
    assert rows[1]["bytes"] > 1e6
    assert "start: expected a date, found 'yesterday'" in rows[5]["problem"]
    assert rows[6]["tags"] == ["abandon"]
    for words, expected in (
        (["--state", "done"], [2, 1]),
        (["--state", "failed"], [3]),
        (["--state", "waiting"], [4]),
        (["--state", "held"], [6]),
        (["--state", "new"], [5]),
        (["--state", "taking"], [7]),
        (["--state", "pending"], []),
        (["--state", "working"], []),
        (["--mode", "le?"], [2]),
        (["--mode", "l*", "--mode", "background", "--range", "000001", "--range", "2-3"], [3, 2, 1]),
        (["--tag", "abandon"], [6]),
        (["--detector", "none_such"], []),
        (["--since", "30d", "--until", "2000-01-01"], []),
        (["--limit", "2"], [7, 6]),
    ):
        code, found = straxflow("runs", "--json", *words)
        assert (code, runs_of(found)) == (0, expected), words
    assert found["more"]


def test_runs_for_a_person(straxflow: Straxflow) -> None:
    code, out = straxflow("runs")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert lines["000001"].endswith("all")
    assert "transfer of live" in lines["000003"]
    assert "due again" in lines["000004"]
    assert straxflow("runs", "--state", "nonsense")[1].strip() == "no such runs"
    code, out = straxflow("runs", "--since", "yesterday")
    assert (code, "--since yesterday: expected a date" in out) == (2, True)
    code, out = straxflow("runs", "--range", "01")
    assert (code, "did you mean '000001'?" in out) == (2, True)


def test_runs_while_the_database_is_away(straxflow: Straxflow) -> None:
    code, found = straxflow("runs", "--json", away=True)
    assert code == 1
    assert "does not answer within 0.3 s" in found["rundb_problem"]
    states = {row["number"]: row["state"] for row in found["runs"]}
    assert states == {1: "done", 2: "done", 3: "damaged", 4: "waiting"}
    assert runs_of(straxflow("runs", "--json", "--state", "done", "--mode", "led", away=True)[1]) == [2]
    assert "by the state folder alone" in straxflow("runs", away=True)[1]


def test_show_a_run_that_is_done(site: Site, straxflow: Straxflow) -> None:
    code, found = straxflow("show", "1", "--json", "--verify")
    assert (code, found["known"], found["rundb_problem"]) == (0, True, None)
    assert found["row"]["state"] == found["state"]["state"] == "done"
    names = {Path(r["path"]).relative_to(site.state().run("000001")).as_posix() for r in found["receipts"]}
    assert names >= {"run.json", "live/transferred.json", "sums/stored.json", "released.json"}
    assert all(r["receipt"]["run"] == "000001" for r in found["receipts"])
    copies = {(c["kind"], c["product"]): c["there"] for c in found["copies"]}
    assert copies == {
        ("daq", "live"): "there", ("live", "live"): "verified",
        ("staging", "raw"): "dropped", ("store", "raw"): "verified",
        ("staging", "sums"): "dropped", ("store", "sums"): "verified",
    }  # fmt: skip
    entries = {(e["type"], e["host"]): e["there"] for e in found["entries"]}
    assert entries[("raw", "testsite")] == entries[("live", "testsite")] == entries[("live", "test-daq")] == "there"
    assert {a["step"] for a in found["attempts"]} >= {"transfer", "process", "checksum", "move_out"}
    code, out = straxflow("show", "000001")
    assert code == 0
    for words in (
        "state in the run database: done",
        "state by receipts and attempts: done",
        "read back: ",
        "xxh128 of",
    ):
        assert words in out


def test_show_tells_a_broken_copy_and_a_broken_receipt(site: Site, straxflow: Straxflow) -> None:
    stored = next((site.folder / "store").glob("000001-sums-*")) / "sums"
    receipt = site.state().run("000002") / "raw/stored.json"
    words, text = stored.read_bytes(), receipt.read_text()
    try:
        stored.write_bytes(b"0" * len(words))
        receipt.write_text(text[:50])
        code, found = straxflow("show", "1", "--json", "--verify")
        odd = [c for c in found["copies"] if c["there"] == "differs"]
        assert (code, [(c["kind"], c["product"]) for c in odd]) == (1, [("store", "sums")])
        assert "digest" in odd[0]["why"]
        code, out = straxflow("show", "2")
        assert (code, "raw/stored.json: not a valid receipt" in out) == (0, True)
    finally:
        stored.write_bytes(words)
        receipt.write_text(text)


def test_show_others(straxflow: Straxflow) -> None:
    code, out = straxflow("show", "3")
    assert code == 0
    assert "state by receipts and attempts: damaged: transfer of live: " in out
    assert "000003/live.transfer.attempts.log" in out
    code, out = straxflow("show", "5")
    assert (code, "malformed: run document of run 5: start" in out) == (0, True)
    assert straxflow("tag", "odd", "6", "--reason", "a look")[0] == 0
    code, out = straxflow("show", "6")
    assert (code, "tags: abandon by ann" in out) == (0, True)
    assert "what people did:" in out
    assert "tag" in out and "a look" in out
    assert "nothing of it in the state folder" in out
    code, out = straxflow("show", "999")
    assert (code, "run 000999: not known here; there is no run document of it" in out) == (1, True)
    code, out = straxflow("show", "1-2")
    assert (code, "expected one run, not 2" in out) == (2, True)
    code, out = straxflow("show", "1", away=True)
    assert (code, "run database: the run database at mongodb://127.0.0.1:9/" in out) == (0, True)
    assert "state by receipts and attempts: done" in out


def test_logs(site: Site, straxflow: Straxflow) -> None:
    code, out = straxflow("logs", "3")
    assert (code, "==> transfer of live, " in out) == (0, True)
    assert "transfer of live, run 000003, begins" in out
    code, found = straxflow("logs", "1", "sums", "--json", "-n", "2")
    assert (code, [(f["product"], f["step"]) for f in found]) == (
        0, [("sums", step) for step in ("process", "checksum", "move_out", "register")],
    )  # fmt: skip
    assert all(0 < len(f["lines"]) <= 2 for f in found)
    assert found[0]["attempts"][0]["outcome"] == "ok"
    code, out = straxflow("logs", "1", "--step", "process", "-n", "1")
    assert (out.count("==>"), out.count("\n")) == (2, 6)
    assert straxflow("logs", "6")[0] == 1
    code, out = straxflow("logs", "1", "rax")
    assert (code, "no product 'rax' (known: live, raw, sums)" in out) == (2, True)


def test_logs_are_followed(site: Site) -> None:
    log = site.state().folder / "logs/000009/raw.process.attempts.log"
    log.parent.mkdir(parents=True)
    log.write_text("first\n")
    out = site.folder / "followed"
    words = ["straxflow", "logs", "--configfile", str(site.root / "config/config.yaml"), "000009", "--follow"]
    with out.open("w") as file:
        process = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env=site.environment())
    try:
        wait_until(lambda: "first" in out.read_text())
        with log.open("a") as more:
            more.write("second\nhalf a ")
            more.flush()
            wait_until(lambda: "second" in out.read_text())
            more.write("line\n")
        (log.parent / "sums.process.attempts.log").write_text("of another\n")
        wait_until(lambda: "half a line\n" in out.read_text() and "of another" in out.read_text())
        assert out.read_text().count("second") == 1
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(log.parent)


def test_health_in_one_line(site: Site, straxflow: Straxflow) -> None:
    code, out = straxflow("health", "--watcher", "none", "--pending", ":", "--free", ":")
    assert (code, out.count("\n")) == (1, 1)
    assert out.startswith("WARNING: 1 run left to a person (straxflow stuck); run database answers")
    assert "left=1;1;" in out.partition(" | ")[2]
    assert "state_disk=" in out
    # what the site configured, and what an option says over it
    assert straxflow("health", "--watcher", "none", "--left", "2:", "--free", ":")[0] == 0
    code, out = straxflow("health", "--watcher", "none", "--left", ":1", "--free", ":")
    assert (code, out.startswith("CRITICAL: 1 run left to a person")) == (2, True)
    assert straxflow("health", "--watcher", "none", "--left", ":", "--free", "101:")[1].startswith("WARNING: state")
    code, out = straxflow("health", "--left", ":", "--free", ":")
    assert (code, "CRITICAL: no watcher has ever run here" in out) == (2, True)
    code, out = straxflow("health", "--watcher", "none", "--left", ":", "--free", ":", "--quiet", "0s:")
    assert (code, "WARNING: a run has been taken for " in out) == (1, True)
    code, out = straxflow("health", "--left", "few")
    assert (code, out) == (3, "UNKNOWN: straxflow: --left few: expected a number\n")


def test_health_of_a_watcher_and_of_what_waits(site: Site, straxflow: Straxflow) -> None:
    calm = ("--left", ":", "--free", ":", "--json")
    watchers = site.client[site.database]["straxflow_watchers"]
    before = site.doc(6)
    moment = datetime.now(UTC)
    lease = {"_id": "testsite/online", "site": "testsite", "campaign": "online", "renewed": moment, "lease_s": 60}

    def sign(part: str, *words: str) -> tuple[str, str]:
        found = straxflow("health", *calm, *words)[1]["signs"]
        return next((s["level"], s["text"]) for s in found if s["part"] == part)

    try:
        watchers.insert_one({**lease, "owner": {**Owner.current().as_dict(), "host": "elsewhere"}})
        assert sign("watcher") == ("ok", "watcher seen 0 s ago") or sign("watcher")[0] == "ok"
        for changes, told in (
            ({"owner": {**Owner.current().as_dict(), "start": 1}}, "is dead or silent"),
            ({"renewed": moment - timedelta(hours=1)}, "silent for 60 min"),
            ({"owner": None}, "no watcher: the last one ended"),
        ):
            watchers.update_one({}, {"$set": changes})
            level, text = sign("watcher")
            assert (level, told in text) == ("FAILED", True), text
        site.runs.update_one({"number": 6}, {"$set": {"tags": [], "end": moment - timedelta(hours=8)}})
        assert sign("pending") == ("warning", "1 pending, the oldest (000006) for 8.0 h")
        assert sign("pending", "--pending", "1h:2h")[0] == "FAILED"
    finally:
        watchers.delete_many({})
        site.runs.replace_one({"number": 6}, before)


def test_health_while_the_database_is_away_or_a_disk_is_gone(site: Site, straxflow: Straxflow) -> None:
    code, out = straxflow("health", "--free", ":", away=True)
    assert (code, "CRITICAL: the run database at mongodb://127.0.0.1:9/ does not answer" in out) == (2, True)
    live = site.folder / "live"
    live.rename(site.folder / "unmounted")
    try:
        code, out = straxflow("health", "--watcher", "none", "--left", ":", "--free", ":")
        assert (code, "is the disk mounted?" in out) == (2, True)
    finally:
        (site.folder / "unmounted").rename(live)


def test_stats(site: Site, straxflow: Straxflow) -> None:
    code, found = straxflow("stats", "--json", "--by", "mode")
    assert code == 0
    bins = {one["key"]: one for one in found["bins"]}
    assert set(bins) == {"background", "led"}
    assert (bins["background"]["runs"], bins["led"]["runs"], bins["led"]["sized"]) == (6, 1, 1)
    received = site.receipts("000002")["live/transferred.json"]["bytes"]
    assert bins["led"]["live_bytes"] == pytest.approx(received, abs=1000)
    stored = site.receipts("000002")["raw/stored.json"]["bytes"]
    assert bins["led"]["stored_bytes"] == pytest.approx(stored, abs=1000)
    assert bins["led"]["rate_mb_s"] == pytest.approx(received / 1e6 / bins["led"]["seconds"], rel=0.01)
    assert found["latency"]["runs"] == 2
    assert 0 < found["latency"]["median_s"] <= found["latency"]["most_s"] < 600
    assert sum(found["failures"].values()) == 1
    steps = {(row["product"], row["step"]): row for row in found["attempts"] if row["outcome"] == "ok"}
    assert steps["sums", "process"]["jobs"] == 1
    costs = {(c["product"], c["step"]): c for c in found["costs"]}
    assert costs["raw", "process"]["runs"] == 2
    assert costs["raw", "process"]["out_per_gb"] == pytest.approx(1e9, rel=0.1)
    # run 5 has no start, run 7 no end
    code, found = straxflow("stats", "--json")
    assert (sum(one["runs"] for one in found["bins"]), found["undated"]) == (5, 2)
    states = {one["key"]: one["runs"] for one in straxflow("stats", "--json", "--by", "state")[1]["bins"]}
    assert states == {"done": 2, "failed": 1, "pending": 2, "none": 2}
    code, out = straxflow("stats", "--by", "mode")
    assert code == 0
    for words in ("live data", "median ", "raw", "failed runs by reason:"):
        assert words in out
    assert straxflow("stats", "--since", "2999-01-01", "--json")[1]["bins"] == []
    code, found = straxflow("stats", "--json", "--by", "mode", away=True)
    assert (code, {one["key"]: one["runs"] for one in found["bins"]}) == (1, {"background": 3, "led": 1})


def test_plan(site: Site, straxflow: Straxflow) -> None:
    code, found = straxflow("plan", "--json")
    # run 5 is malformed, 6 held, 7 being taken; run 3 is damaged, of 4 only the length is known
    assert (code, found["runs"], found["complete"], found["outside"]) == (0, 4, 2, 3)
    assert (found["guessed"], found["unsized"]) == (1, 0)
    parts = {(p["product"], p["step"]): p for p in found["parts"]}
    assert parts["live", "transfer"]["jobs"] == 2
    assert (parts["sums", "process"]["jobs"], parts["sums", "process"]["unknown"]) == (2, 0)
    assert parts["raw", "process"]["basis"] == 2
    assert found["cpu_hours"] > 0
    assert found["stored_bytes"] > 1e6
    third = site.doc(3)
    rate = sum(detector["avg"] for detector in third["rate"].values())
    found = straxflow("plan", "--json", "--runs", "3")[1]
    assert found["live_bytes"] == pytest.approx(rate * 1e6 * (third["end"] - third["start"]).total_seconds(), rel=0.01)
    # a run that a person names is counted in spite of its tag
    assert straxflow("plan", "--json", "--runs", "3", "6")[1]["runs"] == 2
    code, out = straxflow("plan", "--runs", "1-3", "--jobs", "4")
    assert (code, "3 runs, 2 of them complete; to be worked on: 1 background" in out) == (0, True)
    assert "with 4 at once" in out
    assert "told by what the last 2 runs here took" in out
    code, out = straxflow("plan", "--runs", "1", "77")
    assert (code, "77: there is no run document of it" in out) == (1, True)
    assert "nothing to do" in out
    code, out = straxflow("plan", "--sample", "0", "--mode", "background", "--jobs", "0")
    assert code == 2


def test_plan_of_a_new_campaign_and_without_a_basis(site: Site, straxflow: Straxflow) -> None:
    site.init("v9")
    code, found = straxflow("--campaign", "v9", "plan", "--runs", "1", "--json")
    assert (code, found["complete"], found["basis"]["runs"]) == (0, 0, 2)
    assert found["cpu_hours"] > 0
    code, out = straxflow("--campaign", "v9", "plan", "--runs", "1", "--sample", "0")
    assert (code, "there is no basis for CPU and time: no run has been worked on here yet" in out) == (0, True)
    assert "transfer" in out


ODD: list[dict[str, Any]] = [
    {}, {"number": None}, {"number": "12"}, {"number": 12.5}, {"number": 2**62}, {"number": -3}, {"number": True},
    *({"number": 20 + i, **odd} for i, odd in enumerate([
        {"start": 5}, {"start": [datetime.now(UTC)]}, {"end": "now", "start": datetime.now(UTC)},
        {"start": DatetimeMS(10**15), "end": DatetimeMS(10**15)}, {"start": DatetimeMS(-(10**15))},
        {"mode": ["a"]}, {"mode": {"a": 1}}, {"mode": ""}, {"detectors": {"a": 1}}, {"detectors": 7},
        {"tags": "abandon"}, {"tags": {"name": "x"}}, {"tags": [1, {"name": {"a": 1}}, None]},
        {"comments": "none"}, {"comments": [3, {"comment": ["x"]}]}, {"data": "none"}, {"data": {"type": "live"}},
        {"data": [1, None, {"type": ["live"], "size_mb": "big", "host": 5, "time": "x"}]},
        {"data": [{"type": "live", "size_mb": float("nan"), "host": "test-daq"}]},
        {"data": [{"type": "raw", "host": "testsite", "size_mb": [5], "time": [datetime.now(UTC)]}]},
        {"rate": 5}, {"rate": {"xams": "fast", "b": {"avg": "x"}, "c": {"avg": float("inf")}}},
        {"processing_status": 7}, {"processing_status": ["failed"]}, {"processing_status": {"status": {"a": 1}}},
        {"processing_status": {"status": "failed", "reason": {"a": 1}, "time": "x"}},
        {"processing_status": "failed", "straxflow": {"online": {"failures": "many", "due": "soon", "token": 1}}},
        {"straxflow": 5}, {"straxflow": {"online": 5}}, {"straxflow": {"online": {"claim": 5}}},
        {"straxflow": {"online": {"claim": {"batch": 5, "owner": "x", "renewed": "y", "claimed": 1}}}},
        {"straxflow": {"online": {"claim": {"batch": "b", "owner": {"pid": "x"}}, "products": 5}}},
        {"straxflow": {"online": {"products": {"raw": 5}, "wait_until": "x"}}, "processing_status": "pending"},
        {"daq_config": 5}, {"source": []}, {"processing_status": "pending", "end": None, "start": None},
    ])),
]  # fmt: skip


@pytest.mark.fault(
    group="rundb",
    broken="run documents of any shape: fields missing, null, of a wrong type, dates beyond the calendar",
    left="all commands that read tell the good runs, and what is wrong with the others",
    next="the same, until they are corrected",
)
def test_malformed_documents_harm_only_themselves(site: Site, straxflow: Straxflow) -> None:
    documents = site.dump_database()
    moment = datetime.now(UTC) - timedelta(hours=2)
    whole = {"start": moment, "end": moment + timedelta(minutes=5), "mode": "background", "detectors": ["xams"]}
    site.runs.insert_many([{**whole, **odd} for odd in ODD])
    site.runs.insert_one({**whole, "number": 99, "processing_status": "pending", "mode": "good"})
    numbers = [str(odd["number"]) for odd in ODD if type(odd.get("number")) is int and odd["number"] > 0]
    try:
        for words in (
            ["runs", "--limit", "0"], ["runs", "--state", "failed"], ["runs", "--tag", "abandon", "--mode", "b*"],
            ["stats"], ["stats", "--by", "mode"], ["stats", "--by", "state"], ["stuck", "--all"], ["plan"],
            ["plan", "--runs", "1-100"], ["health", "--watcher", "none", "--free", ":"], ["status"], ["space"],
            *(["show", number, *(["--json"] if i % 2 else [])] for i, number in enumerate(numbers)),
        ):  # fmt: skip
            code, out = straxflow(*words)
            assert code in (0, 1), (words, out)
            assert "Traceback" not in str(out)
            if words[0] in ("runs", "stats", "plan", "stuck", "health"):
                assert "the run database at" not in out, (words, out)
            if words[0] != "show":
                code, found = straxflow(*words, "--json")
                assert code in (0, 1), (words, found)
        found = straxflow("runs", "--json", "--mode", "good")[1]
        assert [(row["number"], row["state"], row["problem"]) for row in found["runs"]] == [(99, "pending", None)]
        told = {one["run"]: one["kind"] for one in straxflow("stuck", "--json", "--no-daq")[1]["stuck"]}
        assert told["000099"] == "not claimed"
        assert told["000003"] == "left to a person"
    finally:
        site.runs.delete_many({})
        site.runs.insert_many(documents)


def test_stuck_runs_why_and_what_to_do(site: Site, straxflow: Straxflow) -> None:
    code, found = straxflow("stuck", "--json")
    kinds = {one["run"]: one["kind"] for one in found["stuck"]}
    assert (code, kinds) == (
        1, {"000003": "left to a person", "000004": "no THE_END", "000005": "malformed", "000006": "held"},
    )  # fmt: skip
    assert found["daq_problem"] is None
    told = {one["run"]: one for one in found["stuck"]}
    assert "straxflow retry 000003" in told["000003"]["remedy"]
    assert "straxflow close 000004 --partial" in told["000004"]["remedy"]
    assert "expected a date" in told["000005"]["why"]
    code, out = straxflow("stuck")
    assert "left to a person: failed, and never tried again by itself (1 run)" in out
    assert straxflow("stuck", "1-2") == (0, "no run is stuck\n")
    assert straxflow("stuck", "6")[0] == 0
    kinds = {one["run"]: one["kind"] for one in straxflow("stuck", "--json", "--no-daq", "4")[1]["stuck"]}
    assert kinds == {"000004": "waits"}
    code, found = straxflow("stuck", "--json", away=True)
    assert (code, {one["run"]: one["kind"] for one in found["stuck"]}) == (
        1, {"000003": "left to a person", "000004": "waits"},
    )  # fmt: skip


def test_stuck_claims_and_runs_without_an_end(site: Site, straxflow: Straxflow) -> None:
    moment = datetime.now(UTC)
    me = Owner.current().as_dict()
    claim = {"batch": "b", "owner": me, "claimed": moment - timedelta(hours=2), "renewed": moment, "lease_s": 600}
    documents = site.dump_database()

    def kind(number: int, *words: str, **changes: Any) -> str | None:
        site.runs.update_one({"number": number}, {"$set": changes})
        found = straxflow("stuck", "--json", str(number), *words)[1]["stuck"]
        assert len(found) <= 1
        return f"{found[0]['kind']}: {found[0]['why']}" if found else None

    try:
        assert "no receipt, attempt or line" in str(kind(6, **{"straxflow.online.claim": claim, "tags": []}))
        assert kind(6, "--idle", "3h") is None
        dead = {**claim, "owner": {**me, "start": 1}}
        assert str(kind(6, **{"straxflow.online.claim": dead})).startswith("dead owner: ")
        site.runs.update_one({"number": 6}, {"$unset": {"straxflow": ""}})
        (site.folder / "daq/000006/THE_END").mkdir(parents=True)
        assert str(kind(6)).startswith("not claimed: ")
        assert kind(6, "--idle", "2h") is None
        assert str(kind(3, **{"straxflow.online.due": moment + timedelta(hours=1)})).startswith("waits: ")
        assert kind(7) is None
        assert "it began 1 day" in str(kind(7, start=moment - timedelta(days=1, hours=3)))
        assert "there is nothing of it at the DAQ" in str(kind(7))
        site.document(8)
        assert "run 8 began after it" in str(kind(7))
        assert "two" not in str(kind(8))
        site.document(8)
        code, out = straxflow("stuck")
        assert (code, "run 8: 2 run documents have this number" in out) == (1, True)
        site.configure(daq={"folder": str(site.folder / "nowhere")})
        found = straxflow("stuck", "--json", "4")[1]
        assert ("no such folder" in found["daq_problem"], found["stuck"][0]["kind"]) == (True, "waits")
    finally:
        site.configure(daq={"folder": str(site.folder / "daq")})
        shutil.rmtree(site.folder / "daq/000006", ignore_errors=True)
        site.runs.delete_many({})
        site.runs.insert_many(documents)


def test_space(site: Site, straxflow: Straxflow) -> None:
    code, found = straxflow("space", "--json")
    assert (code, found["problems"]) == (0, [])
    assert {disk["kind"] for disk in found["disks"]} == {"state", "live", "staging", "store"}
    folders = {(one["kind"], one["run"], one["product"]): one for one in found["folders"] if one["run"]}
    assert set(folders) == {
        ("live", "000001", "live"), ("live", "000002", "live"), ("store", "000001", "raw"), ("store", "000001", "sums"),
        ("store", "000002", "raw"),
    }  # fmt: skip
    # products of commands count no records, so none is known to hold them all
    assert folders["live", "000001", "live"]["fate"] == "needed"
    assert folders["store", "000001", "raw"]["bytes"] > 1e6
    dead = Owner(**{**Owner.current().as_dict(), "start": 1}).token()  # type: ignore[arg-type]
    odd = [f"staging/.incoming-x~{dead}", f"store/.differs-000001-raw-x~{dead}", "store/strange", "live/000077"]
    for name in odd:
        (site.folder / name).mkdir()
        (site.folder / name / "file").write_bytes(b"x" * 1000)
    receipt = site.state().path("000001", "raw", Processed)
    text = receipt.read_text()
    staged = site.folder / "staging" / json.loads(text)["targets"]["raw"]["folder"]
    staged.mkdir()
    try:
        receipt.write_text(text.replace('"records_in": null', '"records_in": 5').replace('s_out": null', 's_out": 5'))
        found = {f"{one['kind']}/{one['name']}": one for one in straxflow("space", "--json")[1]["folders"]}
        assert [found[name]["fate"] for name in odd] == ["leftover", "leftover", "unknown", "unknown"]
        assert {found[name]["bytes"] for name in odd} == {1000}
        assert found[f"staging/{staged.name}"]["fate"] == "could be released"
        assert found[f"store/{staged.name}"]["fate"] == "needed"
        live = found["live/000001"]
        assert (live["fate"], "release.live: keep" in live["why"]) == ("kept by configuration", True)
        site.configure(release={"live": "drop"})
        code, out = straxflow("space")
        assert (code, "could be released (2, 2." in out) == (0, True)
        assert "the DAQ has" in out
        (site.folder / "daq").rename(site.folder / "gone")
        assert "could be released (1, 1." in straxflow("space")[1]
        (site.folder / "gone").rename(site.folder / "daq")
    finally:
        site.configure(release={"live": "keep"})
        receipt.write_text(text)
        staged.rmdir()
        for name in odd:
            shutil.rmtree(site.folder / name)
    live_folder = site.folder / "live"
    live_folder.rename(site.folder / "unmounted")
    try:
        code, found = straxflow("space", "--json")
        assert (code, [one for one in found["folders"] if one["kind"] == "live"]) == (1, [])
        assert "is the disk mounted?" in found["problems"][0]
    finally:
        (site.folder / "unmounted").rename(live_folder)
