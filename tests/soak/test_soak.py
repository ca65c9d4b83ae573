"""A site left to itself while everything around it fails: at the end each run is stored once, and nothing is left over.

SOAK_S is how long runs are taken and things are broken, in seconds; SOAK_SEED repeats a sequence of blows.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from pymongo.errors import PyMongoError

from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.slurm import Slurm
from straxflow.lab.sshd import Sshd
from straxflow.orphans import processes_of
from straxflow.owner import Owner, this_host
from tests.site import ROOT, Site, wait_until

SOAK_S = float(os.environ.get("SOAK_S", "20"))
STUCK_S = 240.0
"""How long it may take, once nothing is broken any more, until one more run is done."""
EVERY_S = 4.0
# two cores work off what has piled up in about twice the time
pytestmark = [pytest.mark.slow, pytest.mark.timeout(int(1200 + 4 * SOAK_S))]

SETTINGS: dict[str, Any] = {
    "head_node": ["transfer"],
    "claim": {"lease_s": 10, "max_runs": 5},
    "failures": {"backoff_s": 1, "growth": 1, "give_up_after": 50},
    "watch": {"poll_s": 0.5, "lease_s": 5, "stall_s": 60, "grace_s": 5},
    "rundb": {"timeout_s": 2},
    "transfer": {"length_tolerance_s": 0.1, "timeout_s": 5, "wait_s": 5},
}


@dataclass
class Field:
    """The site, its watchers and what can be broken about it."""

    site: Site
    rundb: RunDbServer
    sshd: Sshd
    slurm: Slurm
    dice: random.Random
    watchers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    taken: dict[int, dict[str, Any]] = field(default_factory=dict)
    blows: list[str] = field(default_factory=list)
    quiet: threading.Lock = field(default_factory=threading.Lock)

    def environment(self) -> dict[str, str]:
        path = f"{self.slurm.folder}/bin:{ROOT}/.venv/bin:{os.environ['PATH']}:/usr/sbin:/sbin"
        return self.site.environment({"SLURM_CONF": self.slurm.env["SLURM_CONF"], "PATH": path})

    def watch(self, profile: str) -> None:
        """Start the watcher of a profile, or start it again, as systemd would."""
        log = self.site.folder / f"watch-{profile}.log"
        with log.open("ab") as output:
            self.watchers[profile] = subprocess.Popen(
                ["straxflow", "--profile", profile, "--configfile", "config/config.yaml", "watch"],
                cwd=self.site.root, env=self.environment(), stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def take(self, number: int) -> None:
        """The DAQ takes a run; its document is kept, for a DAQ writes again what its database lost."""
        with self.quiet:
            self.site.take(number, self.dice.choice(("background", "led")), 0.3)
            self.taken[number] = self.site.doc(number)

    def heal(self) -> None:
        """Write again what a killed database forgot of the DAQ's own words (it loses its last moment, see FILE)."""
        for number, document in self.taken.items():
            there = self.site.runs.find_one({"number": number})
            if there is None:
                self.site.runs.insert_one(document)
            elif there.get("end") is None or not there.get("data"):
                self.site.runs.update_one({"_id": there["_id"]}, {"$set": {k: document[k] for k in ("end", "data")}})

    def batches(self) -> list[str]:
        logs = self.site.state().folder.glob("logs/batches/*.snakemake.log")
        return sorted(log.name.partition(".")[0] for log in logs)

    def mains(self) -> list[int]:
        """The main processes of the invocations."""
        found = []
        for batch in self.batches():
            for pid in processes_of(batch):
                with contextlib.suppress(OSError):
                    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                    if b"--profile" in words and any(word.endswith(b"snakemake") for word in words[:3]):
                        found.append(pid)
        return found

    # --- blows ----------------------------------------------------------------------------------

    def kill_invocation(self) -> None:
        if mains := self.mains():
            os.kill(self.dice.choice(mains), signal.SIGKILL)

    def kill_job(self) -> None:
        runs = [f"{number:06d}" for number in self.taken]
        owners = [Owner.from_dict(a.owner) for run in runs for a in self.site.attempts(run) if a.ended is None]
        alive = [owner.pid for owner in owners if owner.host == this_host() and not owner.is_dead()]
        if alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.dice.choice(alive), signal.SIGKILL)

    def kill_watcher(self) -> None:
        profile = self.dice.choice(sorted(self.watchers))
        self.watchers[profile].kill()
        self.watchers[profile].wait()
        self.watch(profile)

    def kill_rundb(self) -> None:
        with self.quiet:
            self.rundb.kill()
            time.sleep(self.dice.uniform(0, 3))
            self.rundb.start()
            self.heal()

    def kill_sshd(self) -> None:
        self.sshd.kill()
        time.sleep(self.dice.uniform(0, 2))
        self.sshd.start()

    def kill_slurmctld(self) -> None:
        self.slurm.stop_controller()
        time.sleep(self.dice.uniform(0, 3))
        self.slurm.start()

    def turn_switch(self) -> None:
        for position in ("off", "on"):
            self.site.command("straxflow", "--configfile", "config/config.yaml", "switch", position, timeout_s=60)

    def tag_and_untag(self) -> None:
        number = self.dice.choice(sorted(self.taken))
        with self.quiet:
            tag = {"name": "hold-processing", "user": "soak", "date": datetime.now(UTC)}
            self.site.runs.update_one({"number": number}, {"$push": {"tags": tag}})
            time.sleep(0.5)
            self.site.runs.update_one({"number": number}, {"$pull": {"tags": {"user": "soak"}}})

    def strike(self) -> None:
        blow: Callable[[], None] = self.dice.choice(
            [
                self.kill_invocation, self.kill_job, self.kill_job, self.kill_watcher, self.kill_rundb,
                self.kill_sshd, self.kill_slurmctld, self.turn_switch, self.tag_and_untag,
            ]
        )  # fmt: skip
        self.blows.append(blow.__name__)
        print(f"{time.strftime('%T')} {blow.__name__}", flush=True)
        blow()


@pytest.fixture
def around(lab_folder: Path, tmp_path: Path) -> Iterator[Field]:
    """Parts of its own: they are to be killed."""
    folder = lab_folder / "soak"
    seed = int(os.environ.get("SOAK_SEED", str(random.randrange(10**6))))
    print(f"SOAK_SEED={seed}")
    with RunDbServer(folder / "rundb") as rundb, Sshd(folder / "sshd") as sshd, Slurm(folder / "slurm") as slurm:
        site = Site(tmp_path, rundb, sshd, settings=SETTINGS)
        profile = yaml.safe_load((ROOT / "stoomboot/config.yaml").read_text())
        # one batch job a run, asked for often: a job of its own for each step takes half a minute here
        groups = [f"{step}=run_{{run}}" for step in ("process", "checksum", "move_out")]
        profile |= {"latency-wait": 5, "jobs": 8, "groups": groups, "seconds-between-status-checks": 2}
        profile["default-resources"] |= {"mem_mb": 500}
        (site.root / "stoomboot").unlink()
        (site.root / "stoomboot").mkdir()
        (site.root / "stoomboot" / "config.yaml").write_text(yaml.safe_dump(profile))
        made = Field(site, rundb, sshd, slurm, random.Random(seed))
        try:
            yield made
        finally:
            for process in made.watchers.values():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            for batch in made.batches():
                for pid in processes_of(batch):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(PyMongoError):
                site.close()


def test_everything_is_stored_once_whatever_is_killed(around: Field) -> None:
    site = around.site
    for profile in ("local", "stoomboot"):
        around.watch(profile)
    end = time.monotonic() + SOAK_S
    number = 0
    while time.monotonic() < end:
        number += 1
        around.take(number)
        around.strike()
        time.sleep(around.dice.uniform(0, EVERY_S))
    around.heal()

    def settled() -> bool:
        with contextlib.suppress(PyMongoError):
            states = {n: site.status(n) for n in around.taken}
            claims = [n for n in around.taken if "claim" in site.doc(n).get("straxflow", {}).get("online", {})]
            return set(states.values()) <= {"done", "failed"} and not claims
        return False

    def words() -> str:
        documents = [site.doc(n) for n in around.taken]
        open_ones = [d for d in documents if (d.get("processing_status") or {}).get("status") not in ("done", "failed")]
        logs = [log.read_text(errors="replace")[-1000:] for log in site.folder.glob("watch-*.log")]
        return "\n".join([*logs, *map(str, open_ones[:2] or documents[:2])])

    seen = [0.0, time.monotonic()]

    def moving() -> bool:
        done = len(list(site.state().folder.glob("runs/*/released.json")))
        if done > seen[0]:
            seen[:] = [done, time.monotonic()]
        return time.monotonic() - seen[1] < STUCK_S

    wait_until(settled, 1200 + 4 * SOAK_S, alive=moving, words=words)
    for process in around.watchers.values():
        process.send_signal(signal.SIGTERM)
    for process in around.watchers.values():
        assert process.wait(60) == 0, words()
    print(f"{len(around.taken)} runs, blows: {' '.join(around.blows)}")
    check(around)


def check(around: Field) -> None:
    """Every run done or failed for a stated reason; what is stored is whole, once, and the same as in peace."""
    site = around.site
    for number in around.taken:
        run, document = f"{number:06d}", site.doc(number)
        if site.status(number) == "failed":
            assert site.reason(number), document
            continue
        products = ["raw"] if document["mode"] == "led" else ["raw", "sums"]
        own = sorted(e["type"] for e in document["data"] if e["host"] == "testsite")
        assert own == sorted(["live", *products]), own
        stored = {path.name.split("-")[1]: path for path in (site.folder / "store").glob(f"{run}-*")}
        assert sorted(stored) == products
        assert len(list((site.folder / "store").glob(f"{run}-*"))) == len(products)
        daq = site.folder / "daq" / run
        taken = {p.relative_to(daq): p.read_bytes() for p in daq.rglob("*") if p.is_file() and p.stat().st_size}
        data = stored["raw"] / "data"
        assert {p.relative_to(data): p.read_bytes() for p in data.rglob("*") if p.is_file()} == taken
        if "sums" in products:
            parts = " ".join(str(data / p) for p in sorted(taken, key=str))
            whole = subprocess.run(["sh", "-c", f"cat {parts} | cksum"], capture_output=True, check=True).stdout
            assert (stored["sums"] / "sums").read_bytes() == whole
        assert not [a for a in site.attempts(run) if a.ended is None]
    assert {site.status(n) for n in around.taken} == {"done"}, [site.reason(n) for n in around.taken]
    assert not [pid for batch in around.batches() for pid in processes_of(batch)]
    queue = subprocess.run(["squeue", "-h"], env=around.environment(), capture_output=True, text=True, check=True)
    assert not queue.stdout
    assert site.scratch() == []
