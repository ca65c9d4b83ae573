"""What snakemake plans, by the literal command line: `snakemake --profile local -n`."""

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from straxflow.owner import Owner
from tests.site import Site

CHAIN = ["process", "checksum", "move_out", "register"]


@pytest.fixture
def site(tmp_path: Path, rundb_server: RunDbServer, sshd: Sshd) -> Iterator[Site]:
    """A site without runs."""
    made = Site(tmp_path, rundb_server, sshd)
    yield made
    made.close()


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory, rundb_server: RunDbServer, sshd: Sshd) -> Iterator[Site]:
    """A site on which runs 1 (background) and 2 (led) are done."""
    made = Site(tmp_path_factory.mktemp("worked"), rundb_server, sshd)
    made.take(1)
    made.take(2, "led", 0.5)
    result = made.snakemake()
    assert result.code == 0, result.output
    assert [made.status(1), made.status(2)] == ["done", "done"]
    yield made
    made.close()


@pytest.fixture
def done(worked: Site) -> Iterator[Site]:
    """The same for one test, which may remove receipts and change the config: all is put back."""
    state = worked.folder / "state"
    kept = worked.folder / "kept"
    shutil.copytree(state, kept)
    settings, documents = dict(worked.settings), worked.dump_database()
    yield worked
    shutil.rmtree(state)
    kept.rename(state)
    worked.settings = settings
    worked.configure()
    for document in documents:
        worked.runs.replace_one({"_id": document["_id"]}, document)


def of_run(jobs: list[str], run: str) -> list[str]:
    return [job for job in jobs if job.split()[1].split("/")[0] == run]


def chain(run: str, product: str) -> set[str]:
    return {f"{rule} {run}/{product}" for rule in CHAIN}


def whole(run: str, *products: str) -> set[str]:
    once = {f"{rule} {run}" for rule in ("transfer", "register_live", "release")}
    return once.union(*(chain(run, product) for product in products))


def test_pending_runs_of_each_mode_are_previewed_and_nothing_changes(site: Site) -> None:
    site.document(1)
    site.document(2, "led")
    site.document(3, "calibration", processing_status="pending")
    site.document(4, processing_status={"status": "done"})
    site.document(5, tags=[{"name": "abandon"}])
    before = site.dump_database(), site.dump_files()
    result = site.dry_run()
    assert (site.dump_database(), site.dump_files()) == before
    assert result.code == 0, result.output
    assert "3 pending runs would be claimed" in result.output
    assert set(result.jobs) == (
        whole("000001", "raw", "sums") | whole("000002", "raw") | whole("000003", "raw", "sums")
    )
    assert len(result.jobs) == len(set(result.jobs))
    for run, product in (("000001", "sums"), ("000002", "raw")):
        order = of_run(result.jobs, run)
        steps = [f"{rule} {run}" for rule in ("transfer",)]
        steps += [f"{rule} {run}/{product}" for rule in CHAIN] + [f"release {run}"]
        places = [order.index(step) for step in steps]
        assert places == sorted(places)


def test_an_explicit_target_plans_what_it_needs_and_claims_nothing(site: Site) -> None:
    site.document(1)
    site.document(2)
    before = site.dump_database(), site.dump_files()
    result = site.dry_run("runs/000001/sums/processed.json")
    assert (site.dump_database(), site.dump_files()) == before
    assert result.jobs == ["transfer 000001", "process 000001/raw", "process 000001/sums"]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (["transfer"], {"transfer 000001", "register_live 000001"}),
        (
            ["transfer", "process"],
            {"transfer 000001", "register_live 000001"} | {"process 000001/raw", "process 000001/sums"},
        ),
        (
            ["transfer", "process", "checksum", "move_out"],
            whole("000001", "raw", "sums") - {"release 000001", "register 000001/raw", "register 000001/sums"},
        ),
    ],
    ids=["transfer", "process", "move_out"],
)
def test_steps_limit_what_a_site_does(site: Site, steps: list[str], expected: set[str]) -> None:
    site.configure(steps=steps)
    site.document(1)
    result = site.dry_run()
    assert result.code == 0, result.output
    assert set(result.jobs) == expected


def test_a_site_that_only_processes_waits_for_live_data(site: Site) -> None:
    site.configure(steps=["process"])
    site.document(1)
    result = site.dry_run()
    assert result.code == 0, result.output
    assert result.jobs == []
    assert "0 pending runs would be claimed" in result.output


def test_runs_of_a_live_invocation_are_not_previewed_those_of_a_dead_one_are(site: Site) -> None:
    now = datetime.now(UTC)
    claim = {"batch": "other", "lease_s": 60, "claimed": now, "renewed": now}
    live, dead = Owner.current().as_dict(), {**Owner.current().as_dict(), "start": 1}
    status = {"status": "submitted", "time": now}
    for number, owner, renewed in ((1, live, now), (2, dead, now), (3, live, now - timedelta(seconds=61))):
        part = {"token": 1, "claim": {**claim, "owner": owner, "renewed": renewed}}
        site.document(number, processing_status=status, straxflow={"online": part})
    result = site.dry_run()
    assert {job.split()[1].split("/")[0] for job in result.jobs} == {"000002", "000003"}


def test_a_database_that_is_away_is_named(site: Site) -> None:
    site.configure(rundb={"uri": "mongodb://127.0.0.1:9/", "timeout_s": 0.5})
    result = site.dry_run()
    assert result.code != 0
    assert "the run database at mongodb://127.0.0.1:9/ does not answer" in result.output
    assert "Traceback" not in result.output


def test_a_database_that_is_away_stops_a_real_invocation_before_any_job(site: Site) -> None:
    site.document(1)
    site.configure(rundb={"uri": "mongodb://127.0.0.1:9/", "timeout_s": 0.5})
    for targets in ([], ["runs/000001/raw/stored.json"]):
        result = site.snakemake(*targets)
        assert result.code != 0
        assert "does not answer" in result.output
        assert result.jobs == []
        assert "Traceback" not in result.output
        assert site.receipts("000001") == {}


def test_an_empty_database_is_fine(site: Site) -> None:
    result = site.dry_run()
    assert result.code == 0, result.output
    assert result.jobs == []


def test_malformed_documents_are_named_and_the_good_run_is_previewed(site: Site) -> None:
    now = datetime.now(UTC)
    site.document(1)
    site.document(2)
    site.runs.update_one({"number": 2}, {"$set": {"mode": None}})
    site.document(3, end="yesterday")
    site.document(4, start=now, end=now - timedelta(hours=1))
    site.document(5, daq_config=["x"])
    site.document(6, straxflow=5)
    site.document(7)
    site.document(7)
    site.document(8, processing_status="pending")
    site.runs.update_one({"number": 8}, {"$set": {"number": "8"}})
    site.document(9)
    site.runs.update_one({"number": 9}, {"$set": {"number": 9.5}})
    site.runs.insert_one({"processing_status": "pending"})
    result = site.dry_run()
    assert result.code == 0, result.output
    for words in ("run 2: mode", "run 3: end", "run 4: end", "run 5: daq_config", "run 6: straxflow", "run 7: two run"):
        assert words in result.output
    assert {job.split()[1].split("/")[0] for job in result.jobs} == {"000001"}
    assert "Traceback" not in result.output


def test_all_errors_of_the_config_at_once(site: Site) -> None:
    site.configure(
        transfer={"max_paralell": 1, "retries": "many"}, products={"a": {"from": "b"}}, checksum="md5", stepz=[]
    )
    result = site.dry_run()
    assert result.code != 0
    for words in ("transfer.max_paralell: unknown key, did you mean 'max_parallel'?", "transfer.retries", "checksum"):
        assert words in result.output
    assert "stepz: unknown key, did you mean 'steps'?" in result.output
    assert "Traceback" not in result.output


def test_a_missing_or_unmarked_state_folder_stops_the_work(site: Site) -> None:
    site.document(1)
    away = site.folder / "away"
    (site.folder / "state").rename(away)
    for arguments in (["-n"], [], ["runs/000001/raw/stored.json"]):
        result = site.snakemake(*arguments)
        assert result.code != 0
        assert f"{site.folder}/state/online: no such folder (the state of site testsite/online)" in result.output
        assert "Traceback" not in result.output
        assert not (site.folder / "state").exists()
    (site.folder / "state" / "online").mkdir(parents=True)
    result = site.snakemake()
    assert result.code != 0
    assert "has no identity marker" in result.output
    assert list((site.folder / "state" / "online").iterdir()) == []
    assert "claim" not in site.doc(1).get("straxflow", {}).get("online", {})


# --- receipts of a run that is done ----------------------------------------------------------------------


def test_a_done_run_is_not_planned(done: Site) -> None:
    for words in ([], ["runs/000001/released.json"], ["runs/000001/sums/registered.json"]):
        result = done.dry_run(*words)
        assert result.code == 0, result.output
        assert result.jobs == []


def test_a_done_run_set_to_pending_by_hand_is_previewed_as_complete(done: Site) -> None:
    done.runs.update_one({"number": 1}, {"$set": {"processing_status": "pending"}})
    result = done.dry_run()
    assert result.code == 0, result.output
    assert "1 pending run would be claimed" in result.output
    assert result.jobs == []


def test_preview_tells_of_receipts_that_do_not_hold(done: Site) -> None:
    done.runs.update_one({"number": 1}, {"$set": {"processing_status": "pending"}})
    stored = next((done.folder / "store").glob("000001-sums-*"))
    hidden = done.folder / "hidden"
    stored.rename(hidden)
    try:
        before = done.dump_files()
        result = done.dry_run()
        assert done.dump_files() == before
    finally:
        hidden.rename(stored)
    assert "run 000001: sums is not whole in the store" in result.output


@pytest.mark.parametrize(
    ("removed", "target", "expected"),
    [
        (["released.json"], "released.json", ["release 000001"]),
        (
            ["raw/registered.json", "released.json"],
            "released.json",
            ["register 000001/raw", "release 000001"],
        ),
        # deleting an intermediate receipt plans nothing while the later ones stand: it must be named
        (["raw/stored.json"], "released.json", []),
        (["raw/stored.json"], "raw/stored.json", ["move_out 000001/raw"]),
        (["sums/checksums.json"], "sums/checksums.json", ["checksum 000001/sums"]),
        (["live/transferred.json"], "live/transferred.json", ["transfer 000001"]),
    ],
)
def test_a_removed_receipt(done: Site, removed: list[str], target: str, expected: list[str]) -> None:
    done.forget("000001", *removed)
    result = done.dry_run(f"runs/000001/{target}")
    assert result.code == 0, result.output
    assert result.jobs == expected


def test_a_touched_receipt_triggers_nothing_a_changed_one_what_is_below(done: Site) -> None:
    receipt = done.state().run("000001") / "sums" / "processed.json"
    os.utime(receipt)
    assert done.dry_run("runs/000001/released.json").jobs == []
    receipt.write_text(receipt.read_text().replace('"settings"', ' "settings"'))
    steps = [f"{rule} 000001/sums" for rule in CHAIN[1:]]
    assert done.dry_run("runs/000001/released.json").jobs == [*steps, "release 000001"]


def test_neither_config_nor_code_reprocess_the_archive(done: Site) -> None:
    done.configure(strax={"context_kwargs": {"x": 1}, "config": {"y": 2}})
    link = done.root / "workflow"
    link.unlink()
    shutil.copytree(Path(__file__).parents[2] / "workflow", link)
    try:
        for file in [*link.glob("rules/*.smk"), *link.glob("scripts/*.py")]:
            file.write_text(file.read_text().replace("threads: CONFIG", "threads: 0 + CONFIG") + "\n# changed\n")
        done.runs.update_one({"number": 1}, {"$set": {"processing_status": "pending"}})
        for words in ([], ["runs/000001/released.json", "runs/000002/released.json"]):
            result = done.dry_run(*words)
            assert result.code == 0, result.output
            assert result.jobs == []
    finally:
        shutil.rmtree(link)
        link.symlink_to(Path(__file__).parents[2] / "workflow")


@pytest.mark.parametrize("words", [["-n"], []])
def test_a_target_with_a_wrong_run_id_suggests_the_right_one(worked: Site, words: list[str]) -> None:
    before = worked.dump_database()
    result = worked.snakemake(*words, "runs/932/sums/registered.json")
    assert result.code == 1
    assert "'932' is no run id of this experiment; did you mean '000932'?" in result.output
    assert "Traceback" not in result.output
    assert (result.jobs, worked.dump_database()) == ([], before)
