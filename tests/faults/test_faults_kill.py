"""kill -9 of each part while it is at work; one plain start finishes afterwards.

What strikes the steps themselves, at their every change to the disk, is in tests/integration/test_kill.py.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.slurm import Slurm
from straxflow.lab.sshd import Sshd
from straxflow.owner import Owner, process_is_gone
from tests.cluster import Cluster
from tests.faults.checks import nothing_is_lost
from tests.faults.conftest import MakeSite
from tests.faults.proxy import Proxy
from tests.site import Background, Site, descendants, wait_until

SLOW = {"rsync_args": ["--bwlimit=300k"], "timeout_s": 5}


@pytest.fixture
def cluster(make_site: MakeSite, slurm: Slurm) -> Cluster:
    """A site whose processing goes to a Slurm."""
    site = make_site(resources={step: {"mem_mb": 500} for step in ("process", "checksum", "move_out")})
    site.profile = "stoomboot"
    site.configure(products=waiting(site))
    made = Cluster(site, slurm)
    groups = [f"{step}=run_{{run}}" for step in ("process", "checksum", "move_out")]
    made.profile(groups=groups, config={"head_node": ["transfer"]})
    return made


@pytest.fixture
def own_sshd(lab_folder: Path) -> Iterator[Sshd]:
    """An sshd that may be killed."""
    with Sshd(lab_folder / "own_sshd") as server:
        yield server


@pytest.fixture
def own_rundb(lab_folder: Path) -> Iterator[RunDbServer]:
    """A run database that may be killed."""
    with RunDbServer(lab_folder / "own_rundb") as server:
        yield server


def waiting(site: Site) -> dict[str, Any]:
    """A product that is made as soon as the file `go` is there."""
    wait = f"until test -e {site.folder}/go; do sleep 0.1; done"
    line = f"sh -c '{wait}; rsync -am --min-size=1 {{source}}/{{run}}/ {{output}}/data'"
    return {"raw": {"from": "live", "kind": "command", "command": line}}


def at_work(site: Site, number: int, step: str) -> int | None:
    """The process of a step that has begun and not ended."""
    tried = [a for a in site.attempts(f"{number:06d}") if a.step == step and a.ended is None]
    return int(tried[-1].owner["pid"]) if tried else None


def words_of(pid: int) -> list[str]:
    """The command line of a process."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    return [""]


def below(pid: int, program: str) -> int | None:
    """The first process below one that runs a program."""
    return next((p for p in descendants(pid) if Path(words_of(p)[0]).name == program), None)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: process_is_gone(pid), 10)


# --- while live data come in -------------------------------------------------------------------------------


def kill_rsync(sshd: Sshd, step: int) -> None:
    kill(wait_until(lambda: below(step, "rsync")))


def kill_ssh(sshd: Sshd, step: int) -> None:
    kill(wait_until(lambda: below(step, "ssh")))


def kill_session(sshd: Sshd, step: int) -> None:
    assert sshd.pid
    kill(descendants(sshd.pid)[0])


def kill_sshd(sshd: Sshd, step: int) -> None:
    sshd.kill()
    sshd.start()


@pytest.mark.slow
@pytest.mark.fault(
    group="kill",
    broken="kill -9 of {id} during the transfer",
    left="the files that had arrived, in hidden scratch",
    next="needs none: the transfer itself tries again and brings the rest",
)
@pytest.mark.parametrize(
    "strike",
    [
        pytest.param(kill_rsync, id="rsync"),
        pytest.param(kill_ssh, id="the ssh connection"),
        pytest.param(kill_session, id="sshd's session"),
        pytest.param(kill_sshd, id="sshd and its sessions"),
    ],
)
def test_during_a_transfer(own_sshd: Sshd, make_site: MakeSite, strike: Callable[[Sshd, int], None]) -> None:
    site = make_site(sshd=own_sshd, transfer=SLOW)
    site.take(1, "led", 1.0)
    with site.background() as running:
        step = running.until(lambda: at_work(site, 1, "transfer"))
        running.until(lambda: len(arrived(site)) >= 2)
        strike(own_sshd, step)
        result = running.wait()
    assert result.code == 0, result.output
    nothing_is_lost(site, done=[1])
    assert [a.outcome for a in site.attempts("000001") if a.step == "transfer"] == ["ok"]


@pytest.mark.slow
@pytest.mark.fault(
    group="kill",
    broken="kill -9 of the step's process during the transfer",
    left="the files that had arrived, in hidden scratch of a dead owner",
    next="needs none: the job is begun anew at once, and goes on with what had arrived",
)
def test_the_step_during_a_transfer(make_site: MakeSite) -> None:
    site = make_site(transfer=SLOW)
    site.take(1, "led", 1.0)
    with site.background() as running:
        step = running.until(lambda: at_work(site, 1, "transfer"))
        running.until(lambda: len(arrived(site)) >= 4)
        kill(step)
        # the last one may still have been under way
        before = {path.stat().st_ino for path in arrived(site)}
        result = running.wait()
    assert result.code == 0, result.output
    nothing_is_lost(site, done=[1])
    assert [a.outcome for a in site.attempts("000001") if a.step == "transfer"] == ["killed", "ok"]
    live = site.folder / "live"
    there = [path.stat() for path in live.glob("000001/*/*")]
    assert before <= {file.st_ino for file in there} and {file.st_nlink for file in there} == {1}
    assert not [*live.glob(".incoming-*")]


def arrived(site: Site) -> list[Path]:
    return [p for p in (site.folder / "live").glob(".incoming-*/*/*") if not p.name.startswith(".")]


# --- while a product is made -------------------------------------------------------------------------------


def kill_step(running: Background, step: int) -> None:
    kill(step)


def kill_command(running: Background, step: int) -> None:
    kill(wait_until(lambda: below(step, "sh")))


def kill_server(running: Background, step: int) -> None:
    kill(next(p for p in descendants(running.process.pid) if "straxflow.steps.main:main" in words_of(p)))


@pytest.mark.slow
@pytest.mark.fault(
    group="kill",
    broken="kill -9 of {id} while a product is made",
    left="private scratch of a dead owner; an attempt that says what killed it",
    next="needs none: the job is begun anew at once, beside nothing that the dead one left running",
)
@pytest.mark.parametrize(
    "strike",
    [
        pytest.param(kill_step, id="the step's process"),
        pytest.param(kill_command, id="the program that makes it"),
        pytest.param(kill_server, id="the server that starts the steps"),
    ],
)
def test_while_a_product_is_made(site: Site, strike: Callable[[Background, int], None]) -> None:
    site.configure(products=waiting(site))
    site.take(1, "led", 0.5)
    with site.background() as running:
        step = running.until(lambda: at_work(site, 1, "process"))
        shell = wait_until(lambda: below(step, "sh"))
        strike(running, step)
        # the dead one's command must not write on
        wait_until(lambda: process_is_gone(shell), 20)
        (site.folder / "go").touch()
        result = running.wait()
    assert result.code == 0, result.output
    nothing_is_lost(site, done=[1])
    assert [a.outcome for a in site.attempts("000001") if a.step == "process"][-1] == "ok"


# --- the run database --------------------------------------------------------------------------------------

WRITES = {
    "claimed": b"claimed by straxflow",
    "registered": b"$push",
    "given back": b"gave_back",
}


@pytest.mark.slow
@pytest.mark.fault(
    group="kill",
    broken="kill -9 of the run database {when} a run is {write} by it; it is back after a second",
    left="receipts and data; the claim lapses by itself, as its owner is gone",
    next="claims the run again if need be, adopts what was made, registers it once",
)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("write", WRITES)
def test_of_the_run_database_during_a_write(own_rundb: RunDbServer, make_site: MakeSite, write: str, when: str) -> None:
    """`before`: it never hears of the write; `after`: it has done it, and nobody hears of that."""
    site = make_site(rundb=own_rundb)
    site.take(1, "led", 0.5)
    struck = threading.Event()

    def strike(words: bytes) -> bool:
        if struck.is_set() or WRITES[write] not in words:
            return True
        struck.set()
        if when == "after":
            replay(own_rundb, words)
        else:
            time.sleep(1.5)  # this database loses its last second at a kill: here it is about one write
        own_rundb.kill()
        return False

    own_rundb.stop()
    own_rundb.start()  # a kill must not take what was written before
    with Proxy(own_rundb.port, watch=strike) as proxy:
        site.configure(rundb={"uri": f"mongodb://127.0.0.1:{proxy.port}/", "timeout_s": 2})
        with site.background() as running:
            wait_until(lambda: struck.is_set() and not own_rundb.running)
            time.sleep(1)
            own_rundb.start()
            first = running.wait()
        assert "Traceback" not in first.output
        second = site.snakemake()
    assert second.code == 0, second.output
    nothing_is_lost(site, done=[1])
    made = [(a.product, a.step) for a in site.attempts("000001") if a.outcome == "ok"]
    assert made.count(("raw", "process")) == 1


def replay(rundb: RunDbServer, words: bytes) -> None:
    """Say something to the database on a connection of one's own, and let it write that to its disk."""
    with socket.create_connection(("127.0.0.1", rundb.port)) as talk:
        talk.sendall(words)
        talk.recv(1 << 16)
    rundb.stop()


# --- everything at once ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.fault(
    group="kill",
    broken="kill -9 of everything at once, as by a power cut: snakemake and all below it, sshd, the run database; one "
    "run is in its transfer, one in its processing, one is done",
    left="receipts of what was done, scratch of dead owners, claims of a dead owner",
    next="takes the runs over at once, goes on with what had arrived, and finishes all; "
    "the one that was done is left alone",
)
def test_of_everything_at_once(own_rundb: RunDbServer, own_sshd: Sshd, make_site: MakeSite) -> None:
    site = make_site(rundb=own_rundb, sshd=own_sshd)
    site.take(1, "led", 0.5)
    assert site.snakemake().code == 0
    store = {name: times for name, times in site.dump_files().items() if name.startswith("store/")}
    site.configure(products=waiting(site))
    site.take(2, "led", 0.5)
    with site.background() as running:
        running.until(lambda: at_work(site, 2, "process"))
        site.configure(transfer={**SLOW, "rsync_args": ["--bwlimit=60k"]})  # not done before the kill, on any machine
        site.take(3, "led", 1.0)
        with site.background() as other:
            other.until(lambda: len(arrived(site)) >= 2)
            time.sleep(1.5)  # this database loses its last second at a kill, the DAQ's words too
            victims = {p for b in (running, other) for p in (b.process.pid, *descendants(b.process.pid))}
            for pid in victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            own_sshd.kill()
            own_rundb.kill()
            running.process.wait()
            other.process.wait()
    own_sshd.start()
    own_rundb.start()
    (site.folder / "go").touch()
    site.configure(transfer={"rsync_args": []})
    result = site.snakemake()
    assert result.code == 0, result.output
    nothing_is_lost(site, done=[1, 2, 3])
    assert not [job for job in result.jobs if "000001" in job]
    assert {name: times for name, times in site.dump_files().items() if name in store} == store
    assert [a.outcome for a in site.attempts("000003") if a.step == "transfer"] == ["killed", "ok"]


# --- Slurm -------------------------------------------------------------------------------------------------


def kill_slurmctld(cluster: Cluster) -> None:
    time.sleep(7)  # it writes the list of its jobs each five seconds
    cluster.slurm.kill("slurmctld")


def kill_slurmctld_with_its_memory(cluster: Cluster) -> None:
    """As one does that dies before it has written the list of its jobs."""
    cluster.slurm.kill("slurmctld")
    for saved in (cluster.slurm.folder / "state").glob("job_state*"):
        saved.unlink()


def kill_slurmds(cluster: Cluster) -> None:
    for name in ("slurmd.n1", "slurmd.n2"):
        cluster.slurm.kill(name)


@pytest.mark.slow
@pytest.mark.fault(
    group="kill",
    broken="kill -9 of {id} while a batch job is at work; it is back after {away} seconds",
    left="the job, which knows nothing of it, or what its death leaves: private scratch",
    next="needs none: the same invocation goes on; a job that was lost is begun anew",
)
@pytest.mark.parametrize(
    ("strike", "away"),
    [
        # by then a poll has asked in vain as often as Slurm's plugin does by default, and would forget its jobs
        pytest.param(kill_slurmctld, 20, id="slurmctld"),
        pytest.param(kill_slurmctld_with_its_memory, 3, id="slurmctld, which forgets the job"),
        pytest.param(kill_slurmds, 3, id="all slurmds"),
    ],
)
def test_of_slurms_daemons(cluster: Cluster, strike: Callable[[Cluster], None], away: float) -> None:
    site = cluster.site
    site.take(1, "led", 0.5)
    with site.background(env=cluster.env) as running:
        running.until(lambda: at_work(site, 1, "process"), 90)
        strike(cluster)
        time.sleep(away)
        cluster.slurm.start()
        (site.folder / "go").touch()
        result = running.wait(240)
    assert result.code == 0, result.output
    nothing_is_lost(site, done=[1])


@pytest.mark.slow
@pytest.mark.fault(
    group="kill",
    broken="kill -9 of the whole Slurm with its jobs, and of snakemake",
    left="private scratch on the staging disk; an attempt without an end; Slurm's own list of jobs",
    next="cancels by name what Slurm still has of the dead invocation, takes the run over and finishes it",
)
def test_of_the_whole_slurm(cluster: Cluster) -> None:
    site = cluster.site
    site.take(1, "led", 0.5)
    with site.background(env=cluster.env) as running:
        step = running.until(lambda: at_work(site, 1, "process"), 90)
        # its daemons' jobs are sessions of their own
        jobs = [Owner.of(pid) for pid in (step, *descendants(step))]
        running.kill()
        cluster.slurm.kill()
        for job in jobs:
            if not job.is_dead():
                os.kill(job.pid, signal.SIGKILL)
    (site.folder / "go").touch()
    cluster.slurm.start()
    result = site.snakemake(env=cluster.env)
    assert result.code == 0, result.output
    nothing_is_lost(site, done=[1])
    assert [a.outcome for a in site.attempts("000001") if a.step == "process"] == ["killed", "ok"]
