"""snakemake --profile stoomboot on a private Slurm: whole chains, and what happens when jobs or the main die."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.site import ROOT, Site, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

STRAX = {"raw_records": {"from": "live"}, "peaks": {"from": "raw_records"}}
GROUPS = ["process=run_{run}", "checksum=run_{run}", "move_out=run_{run}"]
SMALL = {"mem_mb": 500, "runtime_min": 1}

# what goes wrong in the first attempt of a run, by its number; any later attempt copies its source
FAULTY = """
import pathlib, shutil, sys, time
run, source, output, flags = sys.argv[1:]
flag = pathlib.Path(flags, run)
if not flag.exists():
    flag.write_text("begun")
    if run == "000003":
        hog = bytearray(900_000_000)
        hog[::4096] = b"x" * len(hog[::4096])
    if run != "000004":
        time.sleep(200)
shutil.copytree(pathlib.Path(source, run), pathlib.Path(output, "data"))
"""


# loaded by every Python of a batch job: notes what it connects to
WATCH = """
import os, sys
def note(text):
    with open({file!r}, "a") as file:
        file.write(text + chr(10))
def watch(event, args):
    if event == "socket.connect" and isinstance(args[1], tuple):
        note("connects to port " + str(args[1][1]))
if os.environ.get("SLURM_JOB_ID"):
    note("job " + os.environ["SLURM_JOB_ID"])
    sys.addaudithook(watch)
"""


# a detector that ends its process while it makes a run
CRASHING = """
import os, signal
from straxflow.detectors import demo
from straxflow.detectors.demo.peaks import Peaks

class CrashingPeaks(Peaks):
    def compute(self, hits):
        if self.run_id == "000002":
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().compute(hits)

def context(**settings):
    st = demo.context(**settings)
    st.register(CrashingPeaks)
    return st
"""


def runs_together(cluster: Cluster, count: int) -> None:
    """One batch job for so many runs, with what all of it may take: as the profile tells for small ones. There is room
    for two steps at once, but not for two of strax."""
    small = {step: {"mem_mb": 500, "runtime_min": 2} for step in ("checksum", "move_out")}
    cluster.site.configure(resources={**small, "process": {"mem_mb": 1000, "runtime_min": 2}})
    cluster.profile(
        groups=[group.replace("run_{run}", "runs") for group in GROUPS],
        **{"group-components": [f"runs={count}"], "cores": 2, "resources": ["mem_mb=1500"]},
        **{"set-resource-scopes": ["mem_mb=local"], "config": {"head_node": ["transfer"]}},
    )


def check_done(site: Site, number: int, products: int) -> None:
    """A run that is done, each product of it once: in its document, and in the store."""
    run = f"{number:06d}"
    assert site.status(number) == "done", site.doc(number).get("processing_status")
    entries = [entry["type"] for entry in site.doc(number)["data"] if entry["host"] == "testsite"]
    assert len(entries) == len(set(entries)) == products + 1, entries
    stored = [path.name for path in (site.folder / "store").glob(f"{run}-*")]
    assert len(stored) == products, stored
    assert (site.state().run(run) / "released.json").is_file()


def test_previews_then_brings_whole_runs_in_as_one_job_each_without_the_database(cluster: Cluster) -> None:
    site = cluster.site
    # each step alone would be a short job; the batch job that does all of a run is none
    table = [{"up_to_min": 100, "partition": "short"}, {"partition": "long"}]
    site.configure(products=STRAX, resources={"partitions": table})
    cluster.profile(groups=GROUPS, config={"head_node": ["transfer"]})
    for number in (1, 2):
        site.take(number)
    seen, hooks = site.folder / "seen", site.folder / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(WATCH.format(file=str(seen)))
    documents, files = site.dump_database(), site.dump_files()
    preview = site.snakemake("-n", env=cluster.env)
    assert preview.code == 0, preview.output
    previewed = re.findall(r"runs/(\d+)/(\w+)/processed.json\n\s+log: ", preview.output)
    assert sorted(previewed) == [(f"{n:06d}", product) for n in (1, 2) for product in sorted(STRAX)]
    assert site.dump_database() == documents
    assert site.dump_files() == files
    assert cluster.jobs() == []

    result = site.snakemake(env=cluster.env | {"PYTHONPATH": str(hooks)})
    assert result.code == 0, result.output
    jobs = cluster.jobs()
    assert len(jobs) == 2, jobs  # the transfers ran here
    assert {job["Partition"] for job in jobs} == {"long"}
    noted = set(seen.read_text().splitlines())
    assert {f"job {job['JobId']}" for job in jobs} <= noted
    assert f"connects to port {site.rundb.port}" not in noted  # only the main process asks the run database
    for number in (1, 2):
        check_done(site, number, products=2)
        run = f"{number:06d}"
        tries = site.attempts(run)
        assert all(a.outcome == "ok" for a in tries)
        ids = {step: {a.job_id for a in tries if a.step == step} for step in ("transfer", "process", "move_out")}
        assert ids["transfer"] == {None}
        assert ids["process"] == ids["move_out"]
        assert len(ids["process"]) == 1
        (batch,) = {a.batch for a in tries}
        job = next(j for j in jobs if j["JobId"] in ids["process"])
        assert job["JobName"].startswith(f"straxflow_{batch}_")
        assert f"run_{run}" in job["StdOut"]


def test_several_runs_in_one_batch_job_load_strax_once_and_are_made_as_ever(cluster: Cluster, tmp_path: Path) -> None:
    site = cluster.site
    plain = Site(tmp_path / "plain", site.rundb, site.sshd, settings={"products": STRAX})
    site.configure(products=STRAX)
    runs_together(cluster, 3)
    seen, hooks = site.folder / "seen", site.folder / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(WATCH.format(file=str(seen)))
    # the times in the data are those of the run
    start = datetime.now(UTC) - timedelta(minutes=1)
    for number in (1, 2, 3):
        for one in (site, plain):
            one.take(number, start=start)
    result = site.snakemake(env=cluster.env | {"PYTHONPATH": str(hooks)})
    assert result.code == 0, result.output
    (job,) = cluster.jobs()
    # snakemake, and one Python each that all steps and all of strax are forks of; their clients load nothing
    begun = [line for line in seen.read_text().splitlines() if line == f"job {job['JobId']}"]
    assert len(begun) == 3
    for number in (1, 2, 3):
        check_done(site, number, products=2)
        tries = [a for a in site.attempts(f"{number:06d}") if a.step in ("process", "checksum", "move_out")]
        assert [(a.outcome, a.job_id) for a in tries] == [("ok", job["JobId"])] * 6
    by_time = sorted((a.started, a.ended) for n in (1, 2, 3) for a in site.attempts(f"{n:06d}") if a.step == "process")
    assert all(ended <= begun for (_, ended), (begun, _) in pairwise(by_time))
    result = plain.snakemake()
    assert result.code == 0, result.output
    assert site.products() == plain.products()
    plain.close()


@pytest.mark.fault(
    group="kill",
    broken="the process of strax crashes on one of several runs that share a batch job",
    left="the attempts of that run; all files of the others",
    next="registers the others, of which nothing is made again, and tries that one once more",
)
def test_a_run_that_crashes_takes_none_of_its_batch_job_with_it(cluster: Cluster) -> None:
    site = cluster.site
    (site.folder / "crashing.py").write_text(CRASHING)
    environment = {"PYTHONPATH": f"{ROOT}:{site.folder}"}
    site.configure(products=STRAX, strax={"context": "crashing:context", "environment": environment})
    runs_together(cluster, 3)
    for number in (1, 2, 3):
        site.take(number)
    result = site.snakemake(env=cluster.env)
    assert result.code == 1, result.output
    made = [path.name for path in (site.folder / "store").glob("*-peaks-*")]
    assert sorted(name[:6] for name in made) == ["000001", "000003"]
    crashed = [a for a in site.attempts("000002") if a.outcome != "ok"]
    assert {(a.step, a.product, a.cause) for a in crashed} == {("process", "peaks", "signal")}
    written = {path: path.stat().st_mtime_ns for path in (site.folder / "store").rglob("*") if path.is_file()}
    # mended
    (site.folder / "crashing.py").write_text(CRASHING.replace('"000002"', '"never"'))
    result = site.snakemake(env=cluster.env)
    assert result.code == 0, result.output
    for number in (1, 2, 3):
        check_done(site, number, products=2)
    assert {path: path.stat().st_mtime_ns for path in written} == written


@pytest.mark.fault(
    group="kill",
    broken="batch jobs that are cancelled, run out of time or of memory",
    left="attempts with Slurm's own word for it",
    next="needs none: each is tried again, with more of what it lacked",
)
def test_killed_timed_out_and_over_memory_jobs_are_retried_with_more_and_reported(cluster: Cluster) -> None:
    site = cluster.site
    script, flags = site.folder / "faulty.py", site.folder / "flags"
    script.write_text(FAULTY)
    flags.mkdir()
    command = f"python {script} {{run}} {{source}} {{output}} {flags}"
    site.configure(
        products={"copy": {"from": "live", "kind": "command", "command": command, "resources": SMALL}},
        resources={step: {"mem_mb": 500} for step in ("transfer", "checksum", "move_out")},
    )
    for number in (1, 2, 3, 4):
        site.take(number, size_mb=1.0)
    with site.background(env=cluster.env) as main:
        for run in ("000001", "000002", "000003"):
            main.until((flags / run).exists, 90)
        cluster.run("scancel", cluster.job_of("process", "000001")["JobId"])
        # Slurm counts time limits in minutes: move the end of this one's nearer
        end = (datetime.now() + timedelta(seconds=2)).strftime("%Y-%m-%dT%H:%M:%S")
        cluster.run("scontrol", "update", f"jobid={cluster.job_of('process', '000002')['JobId']}", f"EndTime={end}")
        result = main.wait(180)
    assert result.code == 0, result.output
    for number in (1, 2, 3, 4):
        check_done(site, number, products=1)
    assert len(cluster.jobs()) == 4 * 4 + 3
    for number, state, reason in (
        (1, "CANCELLED", "killed: CANCELLED"),
        (2, "TIMEOUT", "killed: TIMEOUT (time limit 00:01:00)"),
        (3, None, "killed: OUT_OF_MEMORY (it had 500M)"),
    ):
        run = f"{number:06d}"
        first, second = (cluster.job_of("process", run, attempt) for attempt in (0, 1))
        assert state in (None, first["JobState"])
        assert (first["TimeLimit"], second["TimeLimit"]) == ("00:01:00", "00:02:00")
        assert "mem=500M" in first["TRES"] and "mem=1000M" in second["TRES"]
        tries = [a for a in site.attempts(run) if a.step == "process"]
        assert [(a.outcome, a.job_id) for a in tries] == [("killed", first["JobId"]), ("ok", second["JobId"])]
        assert tries[0].reason == reason


@pytest.mark.fault(
    group="kill",
    broken="a batch job cannot be submitted: the folder of its log cannot be made",
    left="the run as it was, its live data here",
    next="goes on with it; no invocation waits for a job that there is not",
)
def test_a_batch_job_that_cannot_be_submitted_is_told_and_not_waited_for(cluster: Cluster) -> None:
    site = cluster.site
    site.configure(resources={step: {"mem_mb": 500} for step in ("transfer", "process", "checksum", "move_out")})
    cluster.profile(groups=GROUPS, config={"head_node": ["transfer"]}, retries=0)
    site.take(1, size_mb=1.0)
    logs = site.root / ".slurm-logs"
    logs.write_text("no folder")
    with site.background(env=cluster.env) as main:
        result = main.wait(60)
    assert result.code == 1, result.output
    assert re.search(r"straxflow: the batch job run_000001_\w+ could not be submitted: .*File exists: ", result.output)
    assert cluster.jobs() == []
    assert site.status(1) == "pending"
    logs.unlink()
    result = site.snakemake(env=cluster.env)
    assert result.code == 0, result.output
    assert site.status(1) == "done"


def test_a_run_whose_node_dies_is_made_on_the_other_node(cluster: Cluster) -> None:
    site = cluster.site
    script, flags = site.folder / "faulty.py", site.folder / "flags"
    script.write_text(FAULTY)
    flags.mkdir()
    command = f"python {script} {{run}} {{source}} {{output}} {flags}"
    lasting = SMALL | {"runtime_min": 10}
    site.configure(products={"copy": {"from": "live", "kind": "command", "command": command, "resources": lasting}})
    cluster.profile(groups=GROUPS, config={"head_node": ["transfer"]})
    site.take(1, size_mb=1.0)
    try:
        with site.background(env=cluster.env) as main:
            main.until((flags / "000001").exists, 90)
            (job,) = cluster.jobs()
            cluster.slurm.cut_power(job["NodeList"])
            result = main.wait(200)
    finally:
        cluster.slurm.start()
    assert result.code == 0, result.output
    check_done(site, 1, products=1)
    first, second = cluster.jobs()
    assert (first["JobState"], second["JobState"]) == ("NODE_FAIL", "COMPLETED")
    assert {first["NodeList"], second["NodeList"]} == {"n1", "n2"}
    tries = [a for a in site.attempts("000001") if a.step == "process"]
    assert [(a.outcome, a.cause, a.job_id) for a in tries] == [
        ("killed", "node failure", first["JobId"]),
        ("ok", None, second["JobId"]),
    ]
    assert tries[0].reason == f"killed: NODE_FAIL (node {job['NodeList']})"


@pytest.mark.fault(
    group="kill",
    broken="kill -9 of snakemake's main process while its batch jobs are at work",
    left="the batch jobs, told apart by their names",
    next="cancels them, takes the runs over at once and finishes them",
)
def test_takes_over_at_once_from_a_killed_main_process(cluster: Cluster) -> None:
    site = cluster.site
    script, flags = site.folder / "faulty.py", site.folder / "flags"
    script.write_text(FAULTY)
    flags.mkdir()
    command = f"python {script} {{run}} {{source}} {{output}} {flags}"
    site.configure(products={"copy": {"from": "live", "kind": "command", "command": command, "resources": SMALL}})
    cluster.profile(groups=GROUPS, config={"head_node": ["transfer"]})
    for number in (1, 2):
        site.take(number, size_mb=1.0)
    with site.background(env=cluster.env) as main:
        main.until(lambda: (flags / "000001").exists() and (flags / "000002").exists(), 90)
        main.kill()
        left = {job["JobId"] for job in cluster.jobs() if job["JobState"] == "RUNNING"}
        assert len(left) == 2
        began = time.monotonic()
        with site.background(env=cluster.env) as second:
            ended = ("CANCELLED", "COMPLETING")
            second.until(lambda: all(j["JobState"] in ended for j in cluster.jobs() if j["JobId"] in left), 30)
            assert time.monotonic() - began < 30
            result = second.wait(150)
    assert result.code == 0, result.output
    for number in (1, 2):
        check_done(site, number, products=1)
        tries = [a for a in site.attempts(f"{number:06d}") if a.step == "process"]
        assert [a.outcome for a in tries] == ["killed", "ok"], tries[0]
        assert tries[0].reason is not None and tries[0].reason.startswith("killed")
    assert len(cluster.jobs()) == 4
    assert site.scratch() == [] or wait_until(lambda: site.scratch() == [], 5)
