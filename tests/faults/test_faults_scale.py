"""More of everything than a detector makes: files in a run, bytes in a file, receipts in a state folder."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from straxflow.lab.daq import RunPlan
from straxflow.owner import Owner
from straxflow.rundb.claims import Claimer
from straxflow.rundb.client import connect
from tests.faults.checks import nothing_is_lost
from tests.faults.conftest import MakeSite
from tests.site import ROOT

MANY_FILES = 20_000
GIB = 1 << 30
MOST_MB = 400
"""Memory that no process of a step may take, however large its data are: a job has 1000 MB by default."""


@pytest.mark.slow
@pytest.mark.fault(
    group="scale",
    broken="a run of 20,000 files",
    left="the run brought in, checked and registered, in bounded memory",
    next="nothing to do",
)
def test_a_run_of_20000_files(make_site: MakeSite) -> None:
    line = "sh -c 'ls -R {source} > {output}/names'"
    site = make_site(products={"names": {"from": "live", "kind": "command", "command": line}})
    # 64 threads, each with a file in every chunk, and in both copies of every overlap
    threads = {f"reader{n}": 16 for n in range(4)}
    plan: dict[str, Any] = {"duration_s": 2.1, "rate_hz": 50, "chunk_length_s": 0.018, "chunk_overlap_s": 0.002}
    site.daq.take(RunPlan(1, processing_threads=threads, n_channels=64, **plan))
    result = site.snakemake()
    assert result.code == 0, result.output
    received = site.receipts("000001")["live/transferred.json"]
    assert len(received["files"]) > MANY_FILES
    assert received["check"]["records"] > 0
    assert all((a.peak_rss_mb or 0) < MOST_MB for a in site.attempts("000001")), site.attempts("000001")
    nothing_is_lost(site, [1])


@pytest.mark.slow
@pytest.mark.fault(
    group="scale",
    broken="a product of one file of 1 GiB, all holes, through the whole chain",
    left="the file stored and read back, in bounded memory",
    next="nothing to do",
)
def test_a_file_of_1_gib_through_the_chain(make_site: MakeSite) -> None:
    make = f"truncate -s {GIB} {{output}}/big"
    site = make_site(products={"raw": {"from": "live", "kind": "command", "command": make}})
    site.take(1, "led", 0.5)
    result = site.snakemake()
    assert result.code == 0, result.output
    assert site.receipts("000001")["raw/stored.json"]["bytes"] == GIB
    assert all((a.peak_rss_mb or 0) < MOST_MB for a in site.attempts("000001")), site.attempts("000001")


@pytest.mark.slow
@pytest.mark.fault(
    group="scale",
    broken="one file of {gib} GiB, all holes, for a manifest of {algorithm}",
    left="its digest, in memory that does not depend on its size",
    next="nothing to do",
)
@pytest.mark.parametrize(("algorithm", "gib"), [("xxh128", 8), ("sha256", 1)])
def test_a_large_file_is_read_in_bounded_memory(tmp_path: Path, algorithm: str, gib: int) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(gib * GIB)
    code = (
        "import sys, pathlib; from straxflow.digests import hash_tree\n"
        "print(hash_tree(pathlib.Path(sys.argv[1]), sys.argv[2]).bytes)\n"
        "print(open('/proc/self/status').read())"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), algorithm], cwd=ROOT, capture_output=True, text=True, check=True
    )
    size, _, status = told.stdout.partition("\n")
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert (int(size), peak and int(peak[1]) < 100_000) == (gib * GIB, True), told.stdout


@pytest.mark.slow
@pytest.mark.fault(
    group="scale",
    broken="5,000 pending runs",
    left="the newest 200 claimed, each by one of two invocations; a preview shows as many",
    next="claims the next 200",
)
def test_5000_pending_runs(make_site: MakeSite) -> None:
    site = make_site(claim={"max_runs": 200, "lease_s": 600})
    site.document(1)
    one = site.doc(1)
    del one["_id"]
    site.runs.insert_many([{**one, "number": number} for number in range(2, 5001)])
    preview = site.dry_run()
    assert preview.code == 0, preview.output[-2000:]
    brought = [int(job.split()[1]) for job in preview.jobs if job.startswith("transfer ")]
    assert sorted(brought, reverse=True) == list(range(5000, 4800, -1))
    assert site.runs.count_documents({"straxflow": {"$exists": True}}) == 0
    claimed: list[int] = []
    for batch in ("one", "two"):
        with connect(site.config) as db:
            taken = Claimer(db, site.config, "online", batch, Owner.current()).claim_pending(lambda _: True, print)
        claimed += [run.run.facts.number for run in taken]
    assert claimed == list(range(5000, 4600, -1))
