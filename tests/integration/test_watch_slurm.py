"""`straxflow watch` with Slurm: what an outage of slurmctld leaves behind is noticed and mended."""

from __future__ import annotations

import signal
import time

import pytest

from tests.cluster import Cluster
from tests.integration.test_watch import batches, begun, done, waiting, watch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.mark.fault(
    group="kill",
    broken="slurmctld is away for longer than a poll of snakemake asks and an invocation may stand still",
    left="batch jobs of which nobody can tell",
    next="needs none: the same invocation goes on, and the watcher lets it, since nobody can tell that it hangs",
)
def test_slurmctld_away_for_longer_than_a_poll_and_a_stall(cluster: Cluster) -> None:
    site, go = cluster.site, cluster.site.folder / "go"
    small = {"mem_mb": 500, "runtime_min": 5}
    products = waiting(go)
    products["raw"]["resources"] = small
    site.configure(products=products, resources={step: {"mem_mb": 500} for step in ("checksum", "move_out")})
    cluster.profile(
        config={"head_node": ["transfer", "checksum", "move_out"]},
        **{"slurm-status-attempts": 2, "latency-wait": 5, "verbose": True},
    )
    site.take(1, size_mb=0.5)
    with watch(site, "--profile", str(site.root / "stoomboot"), env=cluster.env) as one:
        one.until(lambda: begun(site, 1, "process"), 90)
        (batch,) = batches(site)
        cluster.slurm.stop_controller()
        # long enough for all status queries of a poll to fail
        log = site.state().folder / f"logs/batches/{batch}.snakemake.log"
        one.until(lambda: "(final attempt)" in log.read_text(), 150)
        site.configure(watch={"stall_s": 20, "grace_s": 20})
        one.says("the new one is in force")
        time.sleep(25)
        go.touch()
        cluster.slurm.start()
        one.until(done(site, 1), 120)
        assert one.end() == 0, one.words()
    assert "hangs" not in one.output
    assert "does not tell of 1 jobs" in log.read_text()
    assert batches(site) == [batch]
    tries = [a.outcome for a in site.attempts("000001") if a.step == "process"]
    assert tries.count("ok") == 1


def test_stopped_at_once_its_batch_jobs_are_cancelled(cluster: Cluster) -> None:
    site = cluster.site
    products = waiting(site.folder / "never")
    products["raw"]["resources"] = {"mem_mb": 500, "runtime_min": 5}
    site.configure(products=products)
    cluster.profile(config={"head_node": ["transfer", "checksum", "move_out"]})
    site.take(1, size_mb=0.5)
    with watch(site, "--profile", str(site.root / "stoomboot"), env=cluster.env) as one:
        one.until(lambda: begun(site, 1, "process"), 90)
        one.process.send_signal(signal.SIGTERM)
        one.says("told to finish")
        time.sleep(2)
        assert one.process.poll() is None  # a job runs
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(120) == 1, one.words()
    assert {job["JobState"] for job in cluster.jobs()} <= {"CANCELLED", "COMPLETING"}
    assert site.status(1) in (None, "pending")
    assert "claim" not in site.doc(1)["straxflow"]["online"]
