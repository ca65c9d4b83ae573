"""A state folder as years leave it: what reads all of it, and a new run beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from tests.site import QUICK_PRODUCTS, Site

RUNS = 12_500
FACTS = ("start", "end", "mode", "detectors", "processing_status")


@pytest.fixture
def site(tmp_path: Path, rundb_server: RunDbServer, sshd: Sshd) -> Iterator[Site]:
    made = Site(tmp_path, rundb_server, sshd, settings={"products": {"raw": QUICK_PRODUCTS["raw"]}})
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.fault(
    group="scale",
    broken="a state folder with 100,000 receipts, of 12,500 runs",
    left="all that reads them tells so; a new run is brought through beside them",
    next="nothing to do",
)
def test_a_state_folder_with_100000_receipts(site: Site) -> None:
    site.take(1, "led", 0.5)
    first = site.snakemake()
    assert first.code == 0, first.output
    state, document = site.state(), site.doc(1)
    one = state.run("000001")
    texts = {p.relative_to(one): p.read_text() for p in one.rglob("*.json") if "attempts" not in p.parts}
    assert len(texts) >= 8
    for number in range(2, RUNS + 1):
        run = f"{number:06d}"
        for name, text in texts.items():
            file = state.run(run) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.replace("000001", run).replace('"number": 1,', f'"number": {number},'))
    facts = {name: document[name] for name in FACTS}
    site.runs.insert_many([{**facts, "number": number, "data": []} for number in range(2, RUNS + 1)])
    for words in (
        ["status"],
        ["runs", "--json"],
        ["sync", "--dry-run"],
        ["health"],
        ["show", "900"],
        ["stuck"],
        ["stats"],
    ):
        shown = site.command("straxflow", "--configfile", "config/config.yaml", *words, timeout_s=900)
        assert shown.code in (0, 1, 2), (words, shown.output[-2000:])
        assert "Traceback" not in shown.output, (words, shown.output[-2000:])
        if words[0] == "runs":
            assert json.loads(shown.output)["runs"][0]["number"] == RUNS
        if words[0] == "show":
            assert "000900" in shown.output
    site.take(RUNS + 1, "led", 0.5)
    result = site.snakemake()
    assert (result.code, site.status(RUNS + 1)) == (0, "done"), result.output[-3000:]
    assert not [job for job in result.jobs if not job.split()[1].startswith(f"{RUNS + 1:06d}")]
