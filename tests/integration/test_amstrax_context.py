"""The real amstrax, in its own environment, reads what the simulated DAQ writes."""

import json
import os
import socket
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from straxflow.lab.daq import RunPlan, run_document, write_run
from straxflow.lab.rundb_server import RunDbServer
from straxflow.straxjob.validate import Coverage, check_strax_folder, read_metadata

ROOT = Path(__file__).parents[2]
# STRAXFLOW_AMSTRAX_PYTHON: where the environment lies elsewhere
PYTHON = Path(os.environ.get("STRAXFLOW_AMSTRAX_PYTHON", ROOT / ".venv-amstrax/bin/python"))
START = datetime(2026, 11, 20, 12, 0, 0, 250_000, tzinfo=UTC)
PLAN = RunPlan(932, "background", size_mb=3, compressor="zstd", processing_threads={"reader0": 2, "reader1": 1})

Job = dict[str, Any]


def straxjob(folder: Path, job: Job, *flags: str) -> tuple[subprocess.CompletedProcess[str], Job]:
    (folder / "job.json").write_text(json.dumps(job))
    done = subprocess.run(
        [str(PYTHON), "-m", "straxflow.straxjob", "job.json", "result.json", *flags],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done, json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    assert PYTHON.exists(), f"{PYTHON} is missing: run tools/setup.sh"
    live = tmp_path_factory.mktemp("live")
    document = run_document(PLAN, live, "daq", "xams", START)
    facts = {"number": 932, "start": START.isoformat(), "daq_config": document["daq_config"], "mode": PLAN.mode}
    return {
        "run": "000932", "facts": facts, "context": "straxflow.detectors.amstrax:context", "source": "live",
        "source_folder": str(live), "targets": ["raw_records", "peaks", "peak_basics"],
        "records": write_run(live, PLAN, start=START).records,
    }  # fmt: skip


READ_THROUGH_RUNDB = """
import sys, pymongo, strax, amstrax
uri, data_types = sys.argv[1], sys.argv[2:]
amstrax.rundb.get_mongo_client = lambda: pymongo.MongoClient(uri)
st = amstrax.contexts.xams(output_folder="empty", init_rundb=False)
st.storage = [amstrax.RunDB(mongo_dbname="amstrax_reads", mongo_collname="runs", runid_field="number")]
for data_type in data_types:
    if st.is_stored("000932", data_type):
        print("found", data_type, len(st.get_array("000932", data_type, progress_bar=False)))
"""


def found_by_amstrax(uri: str, data: list[Job], folder: Path) -> list[str]:
    """Register the entries and ask amstrax' own RunDB frontend for the data they speak of."""
    runs = MongoClient[Job](uri)["amstrax_reads"]["runs"]
    runs.replace_one({"number": 932}, {"number": 932, "data": data}, upsert=True)
    done = subprocess.run(
        [str(PYTHON), "-c", READ_THROUGH_RUNDB, uri, *(d["type"] for d in data)],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [line for line in done.stdout.splitlines() if line.startswith("found")]


@pytest.mark.slow
def test_raw_records_to_peaks(job: Job, tmp_path: Path, rundb_server: RunDbServer) -> None:
    job = dict(job)
    records = job.pop("records")
    done, result = straxjob(tmp_path, {**job, "output_folder": str(tmp_path / "out")})
    assert (done.returncode, result["error"]) == (0, None), done.stderr
    assert len(result["passes"]) == 1
    assert result["targets"]["raw_records"]["n_records"] == records
    assert result["targets"]["raw_records"]["dead_time"] == {"records": 0, "ns": 0}
    assert result["targets"]["peaks"]["n_records"] > 100

    whole_second, end = START.replace(microsecond=0), START + timedelta(seconds=PLAN.seconds)
    covers = Coverage(*(int(t.timestamp()) * 10**9 for t in (whole_second, end)), 10**9, 7 * 10**9)
    for facts in result["targets"].values():
        folder = tmp_path / "out" / facts["folder"]
        assert check_strax_folder(folder, covers).files == facts["files"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        f["folder"] for f in result["targets"].values()
    )
    peaks = result["targets"]["peaks"]
    assert read_metadata(tmp_path / "out" / peaks["folder"])["lineage"] == peaks["lineage"]
    assert result["versions"]["amstrax"]["version"]

    data = [
        {
            "type": data_type, "host": socket.getfqdn(), "protocol": "FileSytemBackend",
            "location": str(tmp_path / "out" / facts["folder"]), "meta": {"lineage": facts["lineage"]},
        }
        for data_type, facts in result["targets"].items()
    ]  # fmt: skip
    assert found_by_amstrax(rundb_server.uri, data, tmp_path) == [
        f"found {data_type} {facts['n_records']}" for data_type, facts in result["targets"].items()
    ]
    # the host is the reader's own full name, and nothing else
    assert found_by_amstrax(rundb_server.uri, [{**d, "host": "stbc"} for d in data], tmp_path) == []

    # without the run's data, the same lineages
    done, _ = straxjob(tmp_path, {**job, "output_folder": "/nowhere", "source_folder": "/nowhere"}, "--lineage")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {t: f["lineage_hash"] for t, f in result["targets"].items()}

    # from stored raw_records
    raw = result["targets"]["raw_records"]
    done, again = straxjob(
        tmp_path,
        {
            **job, "source": "data", "source_folder": str(tmp_path / "out"), "targets": ["peaks"],
            "source_types": {"raw_records": raw["lineage_hash"]}, "output_folder": str(tmp_path / "again"),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert again["targets"]["peaks"]["n_records"] == result["targets"]["peaks"]["n_records"]


def test_a_context_that_is_not_there_is_told(job: Job, tmp_path: Path) -> None:
    job = {k: v for k, v in job.items() if k != "records"}
    done, result = straxjob(tmp_path, {**job, "output_folder": "out", "context_kwargs": {"name": "xams_big"}})
    assert done.returncode == 2
    assert "xams_big" in result["error"]["message"]
