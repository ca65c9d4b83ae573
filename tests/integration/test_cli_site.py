"""init, check and status on a site with a real run database, a DAQ and a store over ssh, and a Slurm."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from pymongo import MongoClient
from pymongo.collection import Collection

from straxflow.claimfile import ClaimFile
from straxflow.claimfile import write as write_claim
from straxflow.cli import main
from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.slurm import Slurm
from straxflow.lab.sshd import Sshd
from straxflow.owner import Owner
from straxflow.receipts import RunFacts, State, write


@dataclass
class Lab:
    """A site, its configuration file, its run documents."""

    folder: Path
    runs: Collection[dict[str, Any]]
    settings: dict[str, Any]

    @property
    def state(self) -> State:
        return State(self.folder / "state/online")

    def save(self) -> None:
        (self.folder / "site.yaml").write_text(yaml.safe_dump(self.settings))

    def add(self, number: int, **fields: Any) -> None:
        end = datetime.now(UTC) - timedelta(minutes=5)
        document = {"number": number, "start": end - timedelta(seconds=10), "end": end, "mode": "bg"}
        live = {"type": "live", "host": "daq", "location": "/x"}
        self.runs.insert_one({**document, "data": [live], **fields})


@pytest.fixture
def lab(tmp_path: Path, rundb_server: RunDbServer, sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("STRAXFLOW_CAMPAIGN", "online")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "daq").mkdir()
    over_ssh = {"ssh": sshd.host, "ssh_options": sshd.ssh_options}
    settings = {
        "site": "here",
        "folders": {name: str(tmp_path / name) for name in ("state", "live", "staging")},
        "store": {"folder": str(tmp_path / "store"), "min_free_gb": 0, **over_ssh},
        "daq": {"host": "daq", "folder": str(tmp_path / "daq"), **over_ssh},
        "rundb": {"uri": rundb_server.uri, "database": f"cli_{tmp_path.name}"[:60]},
        "runs": {"min_run_number": 10, "settle_s": 0, "modes": ["bg*", "led"]},
        "products": {"raw_records": {"from": "live", "modes": {"exclude": ["led"]}}},
    }
    with MongoClient[dict[str, Any]](rundb_server.uri) as client:
        found = Lab(tmp_path, client[settings["rundb"]["database"]]["runs"], settings)
        found.save()
        yield found
        client.drop_database(settings["rundb"]["database"])


def straxflow(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main([words[0], "--configfile", "site.yaml", *words[1:]])
    return code, *capsys.readouterr()


def verdicts(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, dict[str, Any]]]:
    code, out, _ = straxflow(capsys, "check", "--json")
    told = json.loads(out)
    assert told["ok"] is (code == 0)
    return code, {check["part"]: check for check in told["checks"]}


def test_init_once_then_never_again(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = straxflow(capsys, "init", "--dry-run")
    assert code == 0
    assert out.count("would make") == 4 + 7
    assert not (lab.folder / "state").exists()
    assert not (lab.folder / "store").exists()
    code, out, _ = straxflow(capsys, "init")
    assert code == 0
    for kind in ("state", "live", "staging", "store"):
        assert f"made {kind}: " in out
    assert "made index: number (newest first)" in out
    assert (lab.folder / "store/.straxflow.json").is_file()
    code, out, _ = straxflow(capsys, "init")
    assert code == 0
    assert "made " not in out
    assert out.count("all there already") == 2
    # another campaign has a state folder and indexes of its own
    code, out, _ = straxflow(capsys, "init", "--campaign", "v5")
    assert code == 0
    assert f"made state: {lab.folder}/state/v5" in out
    assert out.count("made ") == 5


def test_init_leaves_another_sites_folder_alone(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    straxflow(capsys, "init")
    lab.settings["site"] = "other"
    lab.save()
    code, _, err = straxflow(capsys, "init")
    assert code == 1
    assert "of site here" in err


def test_check_before_and_after_init(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = verdicts(capsys)
    assert code == 1
    assert found["folder state"]["level"] == found["store"]["level"] == "FAILED"
    assert "straxflow init" in found["store"]["remedy"]
    assert found["indexes"]["level"] == "warning"
    assert "processing_status + number" in found["indexes"]["text"]
    straxflow(capsys, "init")
    code, found = verdicts(capsys)
    assert {check["level"] for check in found.values()} == {"ok"}, found
    assert code == 0
    assert f"{lab.folder}/store: " in found["store"]["text"]
    assert "readable, rsync 3." in found["daq"]["text"]
    assert "ms: best with transfer.streams: 1" in found["line"]["text"]
    assert "raw_records" in found["strax"]["text"]
    assert "strax 2." in found["strax"]["text"]


def test_check_tells_what_is_wrong(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    straxflow(capsys, "init")
    lab.add(11)
    lab.add(12, start="yesterday")
    lab.add(13, mode="led")
    lab.add(14, mode="neutron")
    lab.add(9, mode="below_the_minimum")
    lab.settings["daq"]["folder"] = str(lab.folder / "nowhere")
    lab.settings["store"]["min_free_gb"] = 1e9
    lab.settings["products"]["peeks"] = {"from": "raw_records"}
    lab.save()
    code, found = verdicts(capsys)
    assert code == 1
    assert found["runs"]["text"] == "2 pending, 0 claimed"
    assert found["run documents"]["level"] == "warning"
    assert "run document of run 12: start: expected a date, found 'yesterday'" in found["run documents"]["text"]
    modes = found["run modes"]["text"]
    assert "not in runs.modes: neutron" in modes
    assert "in no product's modes: led" in modes
    assert "below_the_minimum" not in modes
    assert found["daq"]["level"] == found["store"]["level"] == found["strax"]["level"] == "FAILED"
    assert "nowhere" in found["daq"]["text"]
    assert "min_free_gb" in found["store"]["remedy"]
    assert "peeks" in found["strax"]["text"]


def test_check_with_everything_away(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    straxflow(capsys, "init")
    lab.settings["rundb"] |= {"uri": "mongodb://127.0.0.1:1/", "timeout_s": 0.5}
    lab.settings["daq"]["ssh_options"] = ["-F", "none", "-p", "1"]
    lab.settings["store"]["ssh_options"] = ["-F", "none", "-p", "1"]
    lab.settings["strax"] = {"python": ["/no/such/python"]}
    lab.save()
    began = time.monotonic()
    code, found = verdicts(capsys)
    assert code == 1
    assert time.monotonic() - began < 15
    for part in ("run database", "daq", "store", "strax"):
        assert found[part]["level"] == "FAILED"
    assert found["folder live"]["level"] == "ok"
    assert "unreachable" in found["daq"]["text"]
    assert "cannot run '/no/such/python'" in found["strax"]["text"]


def test_check_of_slurm(
    lab: Lab, slurm: Slurm, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    straxflow(capsys, "init")
    lab.settings["steps"] = ["transfer"]
    table = [{"up_to_min": 10**6, "partition": "short"}, {"partition": "huge"}]
    lab.settings["resources"] = {"partitions": table}
    lab.save()
    for name, value in slurm.env.items():
        monkeypatch.setenv(name, value)
    profile = lab.folder / "profile"
    profile.mkdir()
    settings = {
        "configfile": str(lab.folder / "site.yaml"),
        "executor": "slurm",
        "default-resources": {"slurm_partition": "short"},
        "set-resources": {"process": {"slurm_partition": "shrot"}},
    }
    (profile / "config.yaml").write_text(yaml.safe_dump(settings))
    assert main(["--profile", str(profile), "check"]) == 1
    out = capsys.readouterr().out
    assert "snakemake-executor-plugin-slurm 2." in out
    assert "partitions up: long, short" in out
    assert "partition shrot does not exist" in out
    assert re.search(r"partition short allows \d+ minutes, and resources.partitions.0 gives it jobs of 1000000", out)
    assert "partition huge is not up, or does not exist" in out
    assert out.count("FAILED") == 3
    assert all(line.startswith(("ok ", "warning ", "FAILED ", " ")) for line in out.splitlines())


def test_status_by_the_database_s_claims(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    straxflow(capsys, "init")
    alive = Owner.current().as_dict()
    moment = datetime.now(UTC)
    claim = {"owner": alive, "batch": "b1", "lease_s": 600, "claimed": moment, "renewed": moment}
    lab.add(11, processing_status={"status": "submitted"}, straxflow={"online": {"token": 1, "claim": claim}})
    lapsed = {**claim, "owner": {**alive, "host": "elsewhere"}, "renewed": moment - timedelta(hours=1)}
    lab.add(12, processing_status={"status": "submitted"}, straxflow={"online": {"token": 1, "claim": lapsed}})
    lab.add(13, processing_status={"status": "done"})
    lab.add(14)
    lab.add(15, processing_status={"status": "failed"})
    for number in (11, 12, 13):
        run = f"{number:06d}"
        folder = lab.state.run(run)
        folder.mkdir(parents=True)
        facts = RunFacts(run=run, number=number, start=moment, end=moment, mode="bg")
        write(folder / RunFacts.name, facts)
        # the owner of this file lives, but the database knows better
        write_claim(lab.state, ClaimFile(run=run, token=1, batch="b1", owner=alive))
    code, out, _ = straxflow(capsys, "status", "--json")
    told = json.loads(out)
    assert code == 0
    runs = {run["run"]: run for run in told["runs"]}
    assert (runs["000011"]["state"], runs["000011"]["holder"]["life"]) == ("working", "alive")
    assert (runs["000012"]["state"], runs["000012"]["holder"]["life"]) == ("pending", "dead")
    assert runs["000013"]["holder"] is None
    assert told["rundb"] == {"problem": None, "pending": 2, "pending_not_here": ["000014"], "left_to_a_person": []}
    code, out, _ = straxflow(capsys, "status", "15", "000014")
    assert code == 0
    assert "in the run database as failed" in out
    code, out, _ = straxflow(capsys, "status", "16")
    assert code == 1
    assert "neither here nor in the run database" in out
