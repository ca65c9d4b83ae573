"""A run database that refuses, is slow or is away for a while, and documents as years of other tools leave them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from straxflow.lab.rundb_server import RunDbServer
from tests.faults.checks import nothing_is_lost, told_clearly
from tests.faults.conftest import MakeSite
from tests.faults.refusing import AUTHENTICATION_FAILED, NOT_AUTHORIZED, WRITES, Refusing
from tests.integration.test_reading import ODD

SECRET = "hunter2-never-shown"


@pytest.fixture
def own_rundb(lab_folder: Path) -> Iterator[RunDbServer]:
    """A run database that may be stopped."""
    with RunDbServer(lab_folder / "own_rundb") as server:
        yield server


@pytest.mark.slow
@pytest.mark.fault(
    group="rundb",
    broken="it refuses our password",
    left="no run claimed, nothing written; the message names rundb.user, and not the password",
    next="claims as usual once the password is right",
)
def test_a_wrong_password(make_site: MakeSite, rundb_server: RunDbServer) -> None:
    site = make_site()
    site.take(1, "led", 0.5)
    everything = site.dump_database()
    with Refusing(rundb_server.port, {"saslStart": AUTHENTICATION_FAILED}) as door:
        site.configure(rundb={"uri": door.uri, "user": "straxflow"})
        for words in ((), ("-n",), ("runs/000001/live/registered.json",), ("runs/000001/released.json",)):
            refused = site.snakemake(*words, env={"STRAXFLOW_RUNDB_PASSWORD": SECRET})
            told_clearly(refused, "refuses: Authentication failed", "check rundb.user and the password")
            assert (refused.jobs, SECRET in refused.output) == ([], False)
        assert "saslStart" in door.asked
    assert site.dump_database() == everything
    site.configure(rundb={"uri": rundb_server.uri, "user": None})
    result = site.snakemake()
    assert result.code == 0, result.output
    nothing_is_lost(site, [1])


@pytest.mark.slow
@pytest.mark.fault(
    group="rundb",
    broken="its user may only read",
    left="no run claimed, nothing written; what only reads works",
    next="claims as usual once the user may write",
)
def test_a_user_who_may_only_read(make_site: MakeSite, rundb_server: RunDbServer) -> None:
    site = make_site()
    site.take(1, "led", 0.5)
    everything = site.dump_database()
    with Refusing(rundb_server.port, dict.fromkeys(WRITES, NOT_AUTHORIZED)) as door:
        site.configure(rundb={"uri": door.uri})
        preview = site.dry_run()
        assert preview.code == 0, preview.output
        assert "transfer 000001" in preview.jobs
        for words in ((), ("runs/000001/live/registered.json",)):
            refused = site.snakemake(*words)
            told_clearly(refused, "refuses: not authorized", "check rundb.user and the password")
            assert refused.jobs == []
        for name in ("runs", "status", "stuck"):
            shown = site.command("straxflow", "--configfile", "config/config.yaml", name)
            assert "Traceback" not in shown.output
            assert "not authorized" not in shown.output
    assert site.dump_database() == everything
    site.configure(rundb={"uri": rundb_server.uri})
    result = site.snakemake()
    assert result.code == 0, result.output
    nothing_is_lost(site, [1])


@pytest.mark.slow
@pytest.mark.fault(
    group="rundb",
    broken="each of its answers takes 0.3 s",
    left="runs that are done, as with a quick one",
    next="nothing to do",
)
def test_slow_answers(make_site: MakeSite, rundb_server: RunDbServer) -> None:
    site = make_site()
    for number in (1, 2):
        site.take(number, "led", 0.5)
    with Refusing(rundb_server.port, {}, delay_s=0.3) as door:
        site.configure(rundb={"uri": door.uri})
        result = site.snakemake()
    assert result.code == 0, result.output
    nothing_is_lost(site, (1, 2))


@pytest.mark.slow
@pytest.mark.fault(
    group="rundb",
    broken="it is away for a while, again and again, in an invocation over several runs",
    left="no failure counted; what could not be told is told when it is back",
    next="finishes what was not claimed or registered meanwhile",
)
def test_an_outage_in_the_middle(own_rundb: RunDbServer, make_site: MakeSite) -> None:
    site = make_site(rundb=own_rundb, claim={"lease_s": 600})
    site.configure(rundb={"timeout_s": 1})
    for number in (1, 2, 3):
        site.take(number, "led", 0.5)
    with site.background() as running:
        running.until(lambda: site.attempts("000003"))
        for _ in range(2):
            own_rundb.stop()
            own_rundb.start()
        running.wait(180)
    result = site.snakemake()
    assert "Traceback" not in result.output
    if result.code:
        result = site.snakemake()
    assert result.code == 0, result.output
    nothing_is_lost(site, (1, 2, 3))
    assert all("failures" not in site.doc(n)["straxflow"]["online"] for n in (1, 2, 3))


@pytest.mark.slow
@pytest.mark.fault(
    group="rundb",
    broken="pending documents whose fields are missing, null, of a wrong type, enormous; unknown states, odd numbers",
    left="these documents to the letter, each named; the good runs done",
    next="the same, until they are corrected",
)
def test_odd_documents_are_left_as_they_are(make_site: MakeSite) -> None:
    site = make_site()
    site.take(500, "led", 0.5)
    moment = datetime.now(UTC) - timedelta(hours=2)
    whole = {"start": moment, "end": moment + timedelta(minutes=5), "mode": "led", "detectors": ["demo"]}
    pending = {"processing_status": "pending", "data": []}
    site.runs.insert_many([{**whole, **pending, "number": 100, **odd} for odd in ODD if "number" in odd or not odd])
    enormous: list[dict[str, Any]] = [
        {"comments": [{"comment": "x" * 10_000_000}]},
        {"mode": "m" * 100_000},
        {"tags": [{"name": f"tag{n}"} for n in range(20_000)]},
        {"start": "x" * 1_000_000},
        {"mode": "../../etc"}, {"mode": "$(touch X)"}, {"mode": "-rf"}, {"mode": "a\nb"}, {"mode": ".."},
        {"end": moment - timedelta(days=1)}, {"daq_config": {"processing_threads": "many"}},
    ]  # fmt: skip
    site.runs.insert_many([{**whole, **pending, "number": 200 + n, **odd} for n, odd in enumerate(enormous)])
    words = ["ready", "Done", "", "PENDING", {"status": "unheard-of"}, {"status": None}, [], 7]
    site.runs.insert_many(
        [{**whole, "data": [], "number": 300 + n, "processing_status": word} for n, word in enumerate(words)]
    )
    untouched = list(site.runs.find({"number": {"$gte": 300, "$lt": 400}}).sort("_id", 1))
    malformed = [
        200 + n for n, odd in enumerate(enormous) if {"start", "end"} & odd.keys() or odd.get("mode") in ("-rf", "a\nb")
    ]
    odd_ones = list(site.runs.find({"number": {"$in": malformed}}).sort("_id", 1))
    result = site.snakemake()
    assert "Traceback" not in result.output, result.output[-3000:]
    assert max(map(len, result.output.splitlines())) < 20_000
    assert site.status(500) == "done"
    assert list(site.runs.find({"number": {"$gte": 300, "$lt": 400}}).sort("_id", 1)) == untouched
    assert list(site.runs.find({"number": {"$in": malformed}}).sort("_id", 1)) == odd_ones
    for number in malformed:
        assert f"run document of run {number}: " in result.output
    assert not [path for path in site.folder.rglob("X") if path.name == "X"]
    nothing_is_lost(site, [500])


@pytest.mark.slow
@pytest.mark.fault(
    group="rundb",
    broken="a document with a thousand data entries and fields that no tool knows",
    left="all of them, in their order, with ours behind",
    next="nothing to do",
)
def test_what_is_not_ours_in_a_document_stays(make_site: MakeSite) -> None:
    site = make_site()
    site.take(1, "led", 0.5)
    entries: list[Any] = [
        {"type": f"t{n}", "host": f"h{n % 7}", "location": f"/x/{n}", "odd": {"n": [n]}} for n in range(1000)
    ]
    entries[500:500] = [None, 7, "text", {"type": ["list"]}, {"host": {"a": 1}}, {}]
    theirs = {"unknown": {"a": [1, {"b": None}], "dollar": 5}, "Processing": "soon", "x" * 200: 1}
    site.runs.update_one({"number": 1}, {"$push": {"data": {"$each": entries}}, "$set": theirs})
    before = site.doc(1)
    result = site.snakemake()
    assert result.code == 0, result.output
    after = site.doc(1)
    assert after["data"][: len(before["data"])] == before["data"]
    assert [e["type"] for e in after["data"][len(before["data"]) :]] == ["live", "raw"]
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert changed <= {"data", "processing_status", "straxflow", "deleted_data"}


@pytest.mark.slow
@pytest.mark.fault(
    group="damage",
    broken="run.json no longer agrees with the run document, or was edited",
    left="the data; a warning that names each field",
    next="writes run.json again from the document, and looks again at everything behind it",
)
def test_a_run_document_that_changed_behind_run_json(make_site: MakeSite) -> None:
    site = make_site()
    for number in (1, 2):
        site.take(number, "led", 0.5)
    names = [f"runs/{n:06d}/raw/checksums.json" for n in (1, 2)]
    assert site.snakemake(*names).code == 0
    site.runs.update_one({"number": 1}, {"$set": {"source": {"type": "Cs137"}}})
    file = site.state().run("000002") / "run.json"
    file.write_text(file.read_text().replace('"mode": "led"', '"mode": "calibration"'))
    result = site.snakemake()
    assert result.code == 0, result.output
    told = result.output + "".join(log.read_text() for log in (site.state().folder / "logs").rglob("*.log"))
    assert "run 000001: its document changed since run.json was written: source: 'LED' became 'Cs137'" in told
    assert "run 000002: its document changed since run.json was written: mode: 'calibration' became 'led'" in told
    assert site.receipts("000001")["run.json"]["source"] == "Cs137"
    nothing_is_lost(site, (1, 2))
