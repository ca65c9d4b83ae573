"""The lab's parts are real: each is used here as the workflow uses it."""

import datetime
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient, ReturnDocument, UpdateOne
from pymongo.collection import Collection

from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.slurm import Slurm
from straxflow.lab.sshd import Sshd
from tests.site import wait_until

Runs = Collection[dict[str, Any]]


@pytest.fixture
def runs(rundb_server: RunDbServer) -> Iterator[Runs]:
    with MongoClient[dict[str, Any]](rundb_server.uri) as client:
        client.drop_database("test_lab")
        yield client["test_lab"]["runs"]


def numbers(runs: Runs, query: dict[str, Any]) -> list[int]:
    return sorted(doc["number"] for doc in runs.find(query))


def test_ssh_runs_a_command(sshd: Sshd) -> None:
    command = ["ssh", *sshd.ssh_options, sshd.host, "echo hello"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "hello\n"


def test_rsync_over_ssh(sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 100_000)
    shell = " ".join(["ssh", *sshd.ssh_options])
    source = f"{sshd.host}:{tmp_path}/source"
    subprocess.run(["rsync", "-a", "-e", shell, source, str(tmp_path / "copy")], check=True)
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "source").read_bytes()


def test_sshd_stop_cuts_open_connections(tmp_path: Path) -> None:
    with Sshd(tmp_path) as server:
        session = subprocess.Popen(["ssh", *server.ssh_options, server.host, "sleep 60"])
        time.sleep(0.5)
        server.stop()
        assert session.wait(timeout=10) != 0
        server.start()
        assert subprocess.run(["ssh", *server.ssh_options, server.host, "true"]).returncode == 0


def test_claim_like_update_by_the_servers_clock(runs: Runs) -> None:
    runs.insert_many([{"number": 1}, {"number": 2}])
    after = runs.find_one_and_update(
        {"number": {"$gt": 0}},
        {"$set": {"claim.owner": "me"}, "$inc": {"claim.token": 1}, "$currentDate": {"claim.since": True}},
        sort=[("number", -1)],
        return_document=ReturnDocument.AFTER,
    )
    assert after is not None
    assert (after["number"], after["claim"]["owner"], after["claim"]["token"]) == (2, "me", 1)
    now = runs.database.command("isMaster")["localTime"]  # the stand-in does not know hello
    assert abs(after["claim"]["since"] - now) < datetime.timedelta(seconds=5)


def test_queries_on_data_entries(runs: Runs) -> None:
    runs.insert_many(
        [
            {"number": 1, "data": [{"type": "live", "host": "daq"}, {"type": "peaks", "host": "daq"}]},
            {"number": 2, "data": [{"type": "live", "host": "far"}, {"type": "peaks", "host": "daq"}]},
            {"number": 3, "a": {"b": 5}},
        ]
    )
    live = {"data": {"$elemMatch": {"type": "live", "host": "daq"}}}
    assert numbers(runs, live) == [1]
    assert numbers(runs, {"data": {"$not": live["data"]}}) == [2, 3]
    assert numbers(runs, {"a.b": {"$exists": True}}) == [3]
    assert numbers(runs, {"a.b": {"$exists": False}}) == [1, 2]
    assert numbers(runs, {"a.b": 5}) == [3]
    assert numbers(runs, {"data.type": "peaks"}) == [1, 2]
    assert [doc["number"] for doc in runs.find().sort("number", -1).limit(2)] == [3, 2]


def test_guarded_push_and_array_filters(runs: Runs) -> None:
    runs.insert_one({"number": 1, "data": []})
    entry = {"type": "peaks", "host": "here", "size": 1}
    absent = {"number": 1, "data": {"$not": {"$elemMatch": {"type": "peaks", "host": "here"}}}}
    assert runs.update_one(absent, {"$push": {"data": entry}}).modified_count == 1
    assert runs.update_one(absent, {"$push": {"data": entry}}).modified_count == 0
    filters = [{"one.type": "peaks"}]
    runs.update_one({"number": 1}, {"$set": {"data.$[one].size": 2}}, array_filters=filters)
    result = runs.bulk_write(
        [UpdateOne({"number": 1}, {"$inc": {"n": 1}}), UpdateOne({"number": 9}, {"$set": {"n": 1}})]
    )
    assert result.modified_count == 1
    document = runs.find_one({"number": 1}, {"_id": 0})
    assert document == {"number": 1, "data": [entry | {"size": 2}], "n": 1}


def test_rundb_keeps_data_over_restarts(tmp_path: Path) -> None:
    with RunDbServer(tmp_path) as server, MongoClient[dict[str, Any]](server.uri) as client:
        runs = client["xams"]["runs"]
        runs.insert_one({"number": 1})
        server.stop()
        assert RunDbServer(tmp_path).uri == server.uri
        server.start()
        assert runs.count_documents({}) == 1
        runs.insert_one({"number": 2})
        time.sleep(1)
        server.kill()
        server.start()
        assert runs.count_documents({}) == 2


def test_parts_die_with_a_killed_parent(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from straxflow.lab.sshd import Sshd\n"
        "print(Sshd(Path(sys.argv[1])).start()._process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert int(parent.stdout.readline()) > 0
    assert Sshd(tmp_path).running
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 5
    while Sshd(tmp_path).running and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Sshd(tmp_path).running


def test_srun_on_both_partitions(slurm: Slurm) -> None:
    for partition in ("short", "long"):
        command = ["srun", "-p", partition, "-N", "2", "hostname"]
        done = subprocess.run(command, env=slurm.env, capture_output=True, text=True, check=True)
        assert len(done.stdout.splitlines()) == 2


def test_a_cleared_slurm_is_as_a_fresh_one(slurm: Slurm) -> None:
    def say(*words: str) -> str:
        return subprocess.run(words, env=slurm.env, capture_output=True, text=True, check=True).stdout

    say("scontrol", "update", "nodename=n1", "state=drain", "reason=test")
    for how in ([], ["--begin=now+1hour"]):
        say("sbatch", "--output=/dev/null", *how, "--wrap=sleep 100")
    wait_until(lambda: "R" in say("squeue", "--noheader", "--format=%t"), 20)
    assert "drained" in slurm.report()
    slurm.kill("slurmd.n2")
    slurm.clear()
    assert say("squeue", "--noheader") == ""
    assert set(say("sinfo", "--noheader", "--Node", "--format=%N %T").splitlines()) == {"n1 idle", "n2 idle"}


def test_slurm_wrappers_need_no_variables(slurm: Slurm) -> None:
    env = {"PATH": slurm.env["PATH"], "HOME": "/"}
    done = subprocess.run(["sinfo", "-h", "-o", "%R"], env=env, capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == ["long", "short"]
