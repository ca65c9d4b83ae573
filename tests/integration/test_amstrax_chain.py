"""The real amstrax in the real chain: simulated redax data to registered peaks, found again by amstrax itself."""

import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from test_amstrax_context import PYTHON, READ_THROUGH_RUNDB

from straxflow.lab.daq import RunPlan
from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from tests.site import Site


@pytest.mark.slow
def test_simulated_run_to_registered_peaks(tmp_path: Path, rundb_server: RunDbServer, sshd: Sshd) -> None:
    assert PYTHON.exists(), f"{PYTHON} is missing: run tools/setup.sh amstrax"
    site = Site(
        tmp_path,
        rundb_server,
        sshd,
        settings={
            "strax": {
                "python": [str(PYTHON)],
                "environment": {"GIT_PYTHON_REFRESH": "quiet"},
                "context": "straxflow.detectors.amstrax:context",
                "max_gap_s": 2,
            },
            "store": {"folder": str(tmp_path / "store"), "hosts": [socket.getfqdn()], "min_free_gb": 0},
            "products": {
                "raw_records": {"from": "live"},
                "peaks": {"from": "raw_records", "targets": ["peaks", "peak_basics"]},
            },
        },
    )
    plan = RunPlan(932, "background", size_mb=3, compressor="zstd", processing_threads={"reader0": 2, "reader1": 1})
    site.daq.take(plan)

    done = site.snakemake()

    assert done.code == 0, done.output[-4000:]
    assert site.status(932) == "done"
    receipts = site.receipts("000932")
    live, raw = receipts["live/transferred.json"], receipts["raw_records/processed.json"]
    assert raw["records_in"] == raw["records_out"] == live["check"]["records"] > 0
    assert raw["versions"]["amstrax"]
    assert {e["type"] for e in site.doc(932)["data"]} == {"live", "raw_records", "peaks", "peak_basics"}
    found = subprocess.run(
        [str(PYTHON), "-c", _reader(site.database), rundb_server.uri, "raw_records", "peaks", "peak_basics"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    targets: dict[str, Any] = {**raw["targets"], **receipts["peaks/processed.json"]["targets"]}
    assert [line for line in found.stdout.splitlines() if line.startswith("found")] == [
        f"found {name} {targets[name]['records']}" for name in ("raw_records", "peaks", "peak_basics")
    ]
    site.close()


def _reader(database: str) -> str:
    assert "amstrax_reads" in READ_THROUGH_RUNDB
    return READ_THROUGH_RUNDB.replace("amstrax_reads", database)
