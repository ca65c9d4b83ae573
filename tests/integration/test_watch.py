"""`straxflow watch` with real snakemake, a real database and real kills."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from straxflow.orphans import processes_of
from straxflow.watch.lease import COLLECTION
from tests.site import ROOT, Site, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

COPY = {"raw": {"from": "live", "kind": "command", "command": "rsync -am --min-size=1 {source}/{run}/ {output}/data"}}
Document = dict[str, Any]


def waiting(go: Path) -> Document:
    """A product whose command waits until a file is there."""
    script = f"while [ ! -e {go} ]; do sleep 0.1; done; rsync -am --min-size=1 {{source}}/{{run}}/ {{output}}/data"
    return {"raw": {"from": "live", "kind": "command", "command": f'sh -c "{script}"'}}


@dataclass
class Watch:
    """A watcher beside the test."""

    site: Site
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def until(self, condition: Callable[[], Any], timeout_s: float = 60) -> Any:
        return wait_until(condition, timeout_s, lambda: self.process.poll() is None, self.words)

    def says(self, text: str, timeout_s: float = 60) -> None:
        self.until(lambda: text in self.output, timeout_s)

    def words(self) -> str:
        logs = sorted(self.site.state().folder.glob("logs/batches/*.snakemake.log"))
        return self.output + "\n--\n".join(log.read_text(errors="replace")[-1500:] for log in logs[-2:])

    def end(self, timeout_s: float = 60) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def site(tmp_path: Path, rundb_server: RunDbServer, sshd: Sshd) -> Iterator[Site]:
    settings = {"products": COPY, "steps": ["transfer", "process", "checksum", "move_out", "register"]}
    made = Site(tmp_path, rundb_server, sshd, settings=settings)
    yield made
    for batch in batches(made):
        for pid in processes_of(batch):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    made.close()


@contextlib.contextmanager
def watch(site: Site, *words: str) -> Iterator[Watch]:
    log = site.folder / f"watch-{time.monotonic_ns()}.log"
    command = [
        "straxflow",
        "--profile",
        "local",
        "--configfile",
        "config/config.yaml",
        "watch",
        "--poll",
        "0.5",
        *words,
    ]
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=site.root, env=site.environment(), stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        yield Watch(site, process, log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def batches(site: Site) -> list[str]:
    logs = site.state().folder.glob("logs/batches/*.snakemake.log")
    return sorted(log.name.partition(".")[0] for log in logs)


def lease(site: Site) -> Document:
    found = site.client[site.database][f"straxflow_{COLLECTION}"].find_one({"_id": "testsite/online"})
    assert found is not None
    return found


def take(site: Site, number: int) -> float:
    site.take(number, "led", 0.5)
    return time.monotonic()


def done(site: Site, *numbers: int) -> Callable[[], bool]:
    return lambda: all(site.status(number) == "done" for number in numbers)


def test_brings_runs_in_as_they_end_side_by_side_and_drains(site: Site) -> None:
    go = site.folder / "go"
    site.configure(products=waiting(go))
    take(site, 1)
    with watch(site) as one:
        one.until(lambda: [a for a in site.attempts("000001") if a.step == "process"])
        ended = take(site, 2)
        one.until(lambda: site.attempts("000002"), 30)
        print(f"a new run's first job began {time.monotonic() - ended:.1f} s after its end, while another processed")
        took = {batch["batch"]: batch["claimed"] for batch in lease(site)["invocations"]}
        assert len(batches(site)) == 2, one.output
        assert set(took) == set(batches(site))
        # an end is asked for: what runs is finished, a third run is not begun
        one.process.send_signal(signal.SIGTERM)
        one.says("told to finish")
        take(site, 3)
        go.touch()
        assert one.process.wait(60) == 0, one.words()
    assert [site.status(number) for number in (1, 2, 3)] == ["pending", "pending", None]
    assert lease(site)["owner"] is None
    assert not list((site.state().folder / "watch").iterdir())
    with watch(site, "--once") as one:
        assert one.process.wait(60) == 0, one.words()
    assert done(site, 1, 2, 3)()
    assert len(batches(site)) == 3
    assert "3 runs claimed; 3 done" in (site.state().folder / "logs/watch.log").read_text()


def test_a_preview_changes_nothing(site: Site) -> None:
    take(site, 7)
    before = site.dump_database(), site.dump_files()
    shown = site.command("straxflow", "--configfile", "config/config.yaml", "watch", "--dry-run")
    assert shown.code == 0, shown.output
    assert "which would claim 1 runs: 000007" in shown.output
    assert (site.dump_database(), site.dump_files()) == before
    assert site.client[site.database][f"straxflow_{COLLECTION}"].count_documents({}) == 0


def test_killed_watcher_and_killed_invocation(site: Site) -> None:
    go = site.folder / "go"
    site.configure(products=waiting(go))
    take(site, 1)
    with watch(site) as first:
        first.until(lambda: [a for a in site.attempts("000001") if a.step == "process"])
        first.kill()
    (batch,) = batches(site)
    # its invocation lives: the next watcher looks after it, and starts no other for its run
    with watch(site) as second:
        second.says("of an earlier watcher is looked after")
        (main,) = second.until(lambda: [one["pid"] for one in lease(site)["invocations"]])
        command = [pid for pid in processes_of(batch) if b"sleep" in cmdline(pid) or b"while" in cmdline(pid)]
        assert command
        os.kill(main, signal.SIGKILL)
        # the dead one's jobs are stopped, its run given back and taken up again
        second.until(lambda: len(batches(site)) == 2)
        wait_until(lambda: not processes_of(batch), 20, words=lambda: second.output)
        go.touch()
        second.until(done(site, 1))
        assert second.end() == 0, second.words()
    tries = [(a.step, a.outcome) for a in site.attempts("000001")]
    assert tries.count(("process", "ok")) == tries.count(("transfer", "ok")) == 1, tries
    assert site.scratch() == []
    assert not {"failures", "waits"} & set(site.doc(1)["straxflow"]["online"])


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_second_watcher_waits_and_takes_over(site: Site) -> None:
    take(site, 1)
    with watch(site) as first:
        first.until(done(site, 1))
        with watch(site) as second:
            second.says("another watcher acts")
            take(site, 2)
            first.until(done(site, 2))
            assert "begins" not in second.output
            first.kill()
            second.says("this watcher acts now", 20)
            take(site, 3)
            second.until(done(site, 3))
            assert second.end() == 0
    assert lease(site)["term"] == 2


def test_stopped_at_once(site: Site) -> None:
    site.configure(products=waiting(site.folder / "never"))
    take(site, 1)
    with watch(site) as one:
        one.until(lambda: [a for a in site.attempts("000001") if a.step == "process"])
        one.process.send_signal(signal.SIGTERM)
        one.says("told to finish")
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(90) == 1, one.words()
    assert site.status(1) in (None, "pending")
    assert "claim" not in site.doc(1)["straxflow"]["online"]
    assert [a.outcome for a in site.attempts("000001") if a.step == "process"] == ["stopped"]
    assert not [pid for batch in batches(site) for pid in processes_of(batch)]


def test_a_broken_configuration_and_a_mended_one(site: Site) -> None:
    good = (site.root / "config" / "config.yaml").read_text()
    with watch(site) as one:
        one.says("watching campaign")
        (site.root / "config" / "config.yaml").write_text(good.replace("min_run_number", "min_run_nummer"))
        one.says("is not valid; the last good one stays in force")
        assert "did you mean 'min_run_number'" in one.output
        take(site, 1)
        one.until(done(site, 1))
        assert one.output.count("is not valid") == 1
        (site.root / "config" / "config.yaml").write_text(good.replace("min_run_number: 1", "min_run_number: 5"))
        one.says("the new one is in force")
        take(site, 2)
        take(site, 6)
        one.until(done(site, 6))
        assert one.end() == 0
    assert site.status(2) is None


def test_nothing_is_started_in_a_loop(site: Site) -> None:
    """An invocation that cannot even begin is tried again after a pause; one that finds nothing to claim, too."""
    site.configure(rundb={"collection": "runs"})
    take(site, 1)
    profile = site.root / "local"
    profile.unlink()
    profile.mkdir()
    text = (ROOT / "local/config.yaml").read_text()
    (profile / "config.yaml").write_text(text + "no-such-option: 1\n")
    with watch(site, "--profile", str(profile)) as one:
        one.says("before it claimed anything")
        assert "no other one for 15 s" in one.output
        time.sleep(3)
        assert len(batches(site)) == 1
        (profile / "config.yaml").write_text(text)
        one.until(done(site, 1))
        assert one.end() == 0
    assert len(batches(site)) == 2
