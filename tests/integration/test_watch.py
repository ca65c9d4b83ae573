"""`straxflow watch` with real snakemake, a real database and real kills."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest

from straxflow.batch import Batch, batch_file
from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from straxflow.orphans import processes_of
from straxflow.owner import Owner
from straxflow.rundb.client import connect
from straxflow.rundb.switch import set_switch
from straxflow.watch.lease import COLLECTION, Lease, in_words
from tests.folder_site import FolderSite
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


@pytest.fixture
def quick(site: Site) -> Site:
    """A site that only brings runs in."""
    site.configure(steps=["transfer"])
    return site


@contextlib.contextmanager
def watch(site: Site, *words: str, env: Mapping[str, str] | None = None) -> Iterator[Watch]:
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
            command, cwd=site.root, env=site.environment(env), stdin=subprocess.DEVNULL,
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
    return found or {"owner": None, "invocations": []}


def take(site: Site, number: int) -> float:
    site.take(number, "led", 0.5)
    return time.monotonic()


def done(site: Site, *numbers: int) -> Callable[[], bool]:
    return lambda: all(site.status(number) == "done" for number in numbers)


def begun(site: Site, number: int, step: str | None = None) -> bool:
    return any(step in (None, attempt.step) for attempt in site.attempts(f"{number:06d}"))


def reached(site: Site, number: int) -> bool:
    """Where transfer is all that the site does."""
    state = site.doc(number).get("processing_status")
    return isinstance(state, dict) and str(state.get("reason")).startswith("reached")


def tell_parts(site: Site, number: int, ended: datetime) -> None:
    """Print how long a run waited for its first job, and for what."""
    first = min(site.attempts(f"{number:06d}"), key=lambda attempt: attempt.started)
    started = next(entry["started"] for entry in lease(site)["invocations"] if entry["batch"] == first.batch)
    claimed = Batch.model_validate_json((site.state().folder / batch_file(first.batch)).read_text()).made
    moments = [ended, started, claimed, first.started]
    parts = [(after - before).total_seconds() for before, after in pairwise(moments)]
    print(
        f"a new run's first job began {sum(parts):.1f} s after its end, while another processed: seen after "
        f"{parts[0]:.1f} s (poll 0.5 s), claimed {parts[1]:.1f} s later, first job {parts[2]:.1f} s later"
    )


def turn(site: Site, position: Literal["on", "off"]) -> None:
    with connect(site.config) as db:
        set_switch(db, site.config, position)


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_brings_runs_in_side_by_side_keeps_room_for_newer_ones_and_drains(site: Site) -> None:
    go = site.folder / "go"
    site.configure(products=waiting(go), claim={"max_runs": 1}, watch={"max_invocations": 2})
    for number in (1, 2, 3, 4):
        take(site, number)
    with watch(site) as one:
        one.until(lambda: begun(site, 4, "process"))
        # the others are a backlog now, for which the second place is not there
        site.configure(claim={"max_runs": 9})
        one.says("the new one is in force")
        turn(site, "off")
        site.runs.update_one({"number": 2}, {"$push": {"tags": {"name": "prioritize"}}})
        take(site, 5)
        turn(site, "on")
        ended = datetime.now(UTC)
        one.until(lambda: begun(site, 5) and begun(site, 2), 60)
        assert "for 2 that cannot wait): run 000002 is due" in one.output
        one.until(lambda: [b["claimed"] for b in lease(site)["invocations"]] == [1, 2])
        tell_parts(site, 5, ended)
        # an end is asked for: what runs is finished, nothing more is begun
        one.process.send_signal(signal.SIGTERM)
        one.says("told to finish")
        go.touch()
        assert one.process.wait(60) == 0, one.words()
    assert len(batches(site)) == 2
    assert {site.status(number) for number in (1, 2, 3, 4, 5)} <= {None, "pending"}
    assert not [n for n in (2, 4, 5) if "claim" in site.doc(n)["straxflow"]["online"]]
    assert lease(site)["owner"] is None
    assert not list((site.state().folder / "watch").iterdir())

    with watch(site, "--once") as one:
        assert one.process.wait(90) == 0, one.words()
    assert done(site, 1, 2, 3, 4, 5)()
    assert len(batches(site)) == 3
    assert "5 runs claimed; 5 done" in (site.state().folder / "logs/watch.log").read_text()


def test_a_preview_changes_nothing(site: Site) -> None:
    take(site, 7)
    before = site.dump_database(), site.dump_files()
    shown = site.command("straxflow", "--configfile", "config/config.yaml", "watch", "--dry-run")
    assert shown.code == 0, shown.output
    assert "which would claim 1 runs: 000007" in shown.output
    assert (site.dump_database(), site.dump_files()) == before
    assert site.client[site.database][f"straxflow_{COLLECTION}"].count_documents({}) == 0


@pytest.mark.fault(
    group="kill",
    broken="kill -9 of the watcher, then of the invocation that it had started",
    left="the invocation, which goes on; its run, whose claim belongs to a dead owner",
    next="the next watcher looks after what lives, stops what is left of the dead, and starts anew",
)
def test_killed_watcher_and_killed_invocation(site: Site) -> None:
    go = site.folder / "go"
    site.configure(products=waiting(go))
    take(site, 1)
    with watch(site) as first:
        first.until(lambda: begun(site, 1, "process"))
        first.kill()
    (batch,) = batches(site)
    # its invocation lives: the next watcher looks after it, and starts no other for its run
    with watch(site) as second:
        second.says("of an earlier watcher is looked after")
        (main,) = second.until(lambda: [one["pid"] for one in lease(site)["invocations"]])
        assert [pid for pid in processes_of(batch) if b"sleep 0.1" in cmdline(pid)]
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


@pytest.mark.fault(
    group="two",
    broken="two watchers; the one that acts is silent for longer than its lease, and wakes up",
    left="one that acts at any time",
    next="as ever: the other one waits to take over",
)
def test_one_watcher_acts_the_other_waits_and_takes_over(quick: Site) -> None:
    site = quick
    site.configure(watch={"lease_s": 4})
    with watch(site) as first:
        first.says("watching")
        first.until(lambda: lease(site)["owner"])
        with watch(site) as second:
            second.says("another watcher acts")
            # silent for longer than its lease, though alive: it may be anywhere
            first.process.send_signal(signal.SIGSTOP)
            second.says("this watcher acts now", 30)
            take(site, 1)
            second.until(lambda: reached(site, 1))
            first.process.send_signal(signal.SIGCONT)
            first.says("lost its lease")
            first.says("another watcher acts")
            # dead on the same host: at once
            second.kill()
            first.until(lambda: first.output.count("this watcher acts now") == 1, 20)
        take(site, 2)
        first.until(lambda: reached(site, 2))
        assert first.end() == 0
    assert lease(site)["term"] == 3
    assert [a.outcome for n in ("000001", "000002") for a in site.attempts(n) if a.step == "transfer"] == ["ok", "ok"]


def test_stopped_at_once(site: Site) -> None:
    site.configure(products=waiting(site.folder / "never"))
    take(site, 1)
    with watch(site) as one:
        one.until(lambda: begun(site, 1, "process"))
        one.process.send_signal(signal.SIGTERM)
        one.says("told to finish")
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(90) == 1, one.words()
    assert site.status(1) in (None, "pending")
    assert "claim" not in site.doc(1)["straxflow"]["online"]
    assert [a.outcome for a in site.attempts("000001") if a.step == "process"] == ["stopped"]
    assert not [pid for batch in batches(site) for pid in processes_of(batch)]


def test_one_that_hangs_is_replaced_and_told(site: Site) -> None:
    go = site.folder / "go"
    hook = f"sh -c 'cat > {site.folder}/told'"
    site.configure(products=waiting(go), watch={"grace_s": 2}, hooks={"on_stall": hook})
    take(site, 1)
    with watch(site) as one:
        one.until(lambda: begun(site, 1, "process"))
        (batch,) = batches(site)
        (main,) = one.until(lambda: [entry["pid"] for entry in lease(site)["invocations"]])
        os.kill(main, signal.SIGSTOP)
        site.configure(watch={"stall_s": 3})
        one.says("the new one is in force")
        time.sleep(5)
        assert "hangs" not in one.output  # a job of it runs
        go.touch()
        one.says("it hangs: nothing moved and no job ran")
        site.configure(watch={"stall_s": 900})
        one.says("it did not stop within 2 s")
        one.until(done(site, 1))
        assert one.end() == 0
    assert len(batches(site)) == 2
    told = json.loads((site.folder / "told").read_text())
    assert (told["kind"], told["batch"], told["state"]) == ("on_stall", batch, "stalled")
    assert lease(site)["counts"]["hung"] == 1


def test_a_broken_configuration_a_mended_one_and_the_switch(quick: Site) -> None:
    site = quick
    file = site.root / "config" / "config.yaml"
    good = file.read_text()
    with watch(site) as one:
        one.says("watching campaign")
        file.write_text(good.replace("min_run_number", "min_run_nummer"))
        one.says("is not valid; the last good one stays in force")
        assert "did you mean 'min_run_number'" in one.output
        take(site, 1)
        one.until(lambda: reached(site, 1))
        assert one.output.count("is not valid") == 1
        file.write_text(good.replace("min_run_number: 1", "min_run_number: 5"))
        one.says("the new one is in force")
        turn(site, "off")
        take(site, 2)
        take(site, 6)
        one.says("auto_processing is off")
        time.sleep(1)
        assert len(batches(site)) == 1
        turn(site, "on")
        one.until(lambda: reached(site, 6))
        assert one.end() == 0
    assert site.status(2) is None


def test_nothing_is_started_in_a_loop(quick: Site) -> None:
    """An invocation that cannot even begin is tried again after a pause."""
    site = quick
    take(site, 1)
    profile = site.root / "own"
    profile.mkdir()
    text = (ROOT / "local/config.yaml").read_text()
    (profile / "config.yaml").write_text(text + "no-such-option: 1\n")
    with watch(site, "--profile", str(profile)) as one:
        one.says("before it claimed anything")
        one.says("again in 15 s; it said:")
        assert "no-such-option" in one.output
        time.sleep(3)
        assert len(batches(site)) == 1
        (profile / "config.yaml").write_text(text)
        one.until(lambda: reached(site, 1))
        assert one.end() == 0
    assert len(batches(site)) == 2


def test_a_database_that_goes_away_and_comes_back(tmp_path: Path, sshd: Sshd) -> None:
    go = tmp_path / "go"
    with RunDbServer(tmp_path / "rundb") as server:
        site = Site(tmp_path / "site", server, sshd, settings={"products": waiting(go), "rundb": {"timeout_s": 1}})
        take(site, 1)
        with watch(site) as one:
            one.until(lambda: begun(site, 1, "process"))
            server.stop()
            one.says("does not answer within")
            go.touch()
            time.sleep(3)
            assert one.output.count("does not answer within") == 1
            server.start()
            one.says("the run database is back", 90)
            one.until(done(site, 1), 120)
            take(site, 2)
            one.until(done(site, 2))
            assert one.end() == 0
        site.close()


def test_an_idle_watcher_costs_next_to_nothing(quick: Site) -> None:
    with watch(quick, "--poll", "2") as one:
        one.until(lambda: lease(quick)["owner"])
        time.sleep(3)
        tasks = Path(f"/proc/{one.process.pid}/task")

        def cpu_s() -> float:
            return sum(int(task.read_text().split()[0]) for task in tasks.glob("*/schedstat")) / 1e9

        began, spent = time.monotonic(), cpu_s()
        time.sleep(10)
        share = (cpu_s() - spent) / (time.monotonic() - began)
        print(f"an idle watcher takes {100 * share:.2f} % of a core")
        assert share < 0.05
        assert one.end() == 0


def test_the_lease_has_one_holder_at_a_time(site: Site) -> None:
    site.configure(watch={"lease_s": 3})
    here = Owner.current()
    far = Lease(site.config, "online", Owner("elsewhere", here.boot, here.pid, here.start))
    with connect(site.config) as db:
        assert far.take(db) is None
        mine = [Lease(site.config, "online") for _ in range(8)]

        def take(one: Lease) -> bool:
            return one.take(db) is None

        with ThreadPoolExecutor(8) as pool:
            assert not any(pool.map(take, mine))
            time.sleep(2)
            assert far.renew(db, {"polled": None})
            time.sleep(2)
            assert not any(pool.map(take, mine))  # renewed, so still held though the first lease is over
            time.sleep(1.5)
            assert sum(pool.map(take, mine)) == 1
        (holder,) = [one for one in mine if one.term is not None]
        assert holder.term == 2
        # the far one comes back to life
        assert not far.renew(db, {"polled": None})
        assert far.term is None
        assert in_words(far.take(db) or {}).endswith(f"(pid {here.pid})")
        far.give_up(db, {})
        assert holder.renew(db, {})
        holder.give_up(db, {"invocations": []})
        assert lease(site)["owner"] is None
        assert far.take(db) is None
        assert far.term == 3
        assert Lease(site.config, "v5").take(db) is None  # each campaign has its own


def test_without_a_run_database(tmp_path: Path) -> None:
    site = FolderSite(tmp_path, steps=["transfer"])
    with watch(site) as one:
        one.says("watching campaign")
        site.take(1, size_mb=0.5)
        one.until(lambda: reached(site, 1))
        site.take(2, size_mb=0.5)
        one.until(lambda: reached(site, 2))
        assert one.end() == 0, one.words()
