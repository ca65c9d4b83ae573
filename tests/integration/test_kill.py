"""kill -9 in the middle of each step, then a plain rerun at once: nothing lost, nothing double.

A hook in the step's own process stops it at a chosen one of its changes to the disk, so that the kill hits that
place each time.
"""

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from straxflow.orphans import processes_of
from straxflow.owner import process_fields, process_is_gone, this_host
from tests.site import Background, Site, descendants, wait_until

STEPS = ("claim", "transfer", "register_live", "process", "checksum", "move_out", "register", "release")
# as many files and folders for each run
EIGHT = "find . -type f -path './0*' -not -path '*_p*' | sort | head -8 | xargs cp --parents -t {output}"
PRODUCT = {"raw": {"from": "live", "kind": "command", "command": f'sh -c "cd {{source}}/{{run}} && {EIGHT}"'}}

HOOK = """
import itertools, os, signal, sys, threading

STEPS = ("claim", "transfer", "register_live", "process", "checksum", "move_out", "register", "release")
CHANGES = {"os.rename", "os.mkdir", "os.link", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree"}
script = ""  # of a job: the first of its words, which a server gives to the forks that it makes
folder = os.environ.get("TEST_FOLDER", "-")
numbers = itertools.count(1)  # unlike +=, one step for all threads
count = 0
busy = False
mine = threading.local()
lock = threading.Lock()


def note(event, args):
    global count, busy, script
    script = script or (sys.argv[1] if sys.argv[1:2] and sys.argv[1] in STEPS else "")
    if busy or not script or getattr(mine, "busy", False):
        return
    if event == "open":
        writes = isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    else:
        writes = event in CHANGES
    place = os.path.abspath(os.fsdecode(args[0])) if writes and not isinstance(args[0], int) else ""
    if not place.startswith(folder + "/") or any(p in place for p in ("/logs/", "/__pycache__/", "/.snakemake/")):
        return
    number = next(numbers)
    with lock:
        count = max(count, number)
        tell()
    if f"{script}:{number}" in os.environ.get("TEST_STOP", "").split():
        busy = True
        stopped = os.path.join(folder, "stopped")
        with open(stopped + ".new", "w") as file:
            file.write(f"{os.getpid()} {script}")
        os.rename(stopped + ".new", stopped)
        os.kill(os.getpid(), signal.SIGSTOP)


def tell():
    mine.busy = True
    with open(os.path.join(folder, "counts", script), "w") as file:
        file.write(str(count))
    mine.busy = False


if os.path.isdir(os.path.join(folder, "counts")):
    sys.addaudithook(note)
"""


@pytest.fixture
def site(tmp_path: Path, rundb_server: RunDbServer, sshd: Sshd) -> Iterator[Site]:
    made = Site(tmp_path / "site", rundb_server, sshd, settings={"products": PRODUCT})
    (made.folder / "hook").mkdir()
    (made.folder / "hook" / "sitecustomize.py").write_text(HOOK)
    (made.folder / "counts").mkdir()
    for name in ("runs", "batches"):  # so that the first run changes as much as a later one
        (made.state().folder / name).mkdir()
    yield made
    made.close()


def hooked(site: Site, stops: Mapping[str, int] | None = None) -> dict[str, str]:
    """The environment in which each of these steps stops at its change of this number."""
    words = " ".join(f"{step}:{number}" for step, number in (stops or {}).items())
    return {"PYTHONPATH": str(site.folder / "hook"), "TEST_FOLDER": str(site.folder), "TEST_STOP": words}


def stopped_at(site: Site, running: Background) -> tuple[int, str]:
    """Wait until the hook stopped a step; its process and name."""
    marker = site.folder / "stopped"
    running.until(marker.exists)
    pid, step = marker.read_text().split()
    wait_until(lambda: process_fields(int(pid))[0] == "T")
    marker.unlink()
    return int(pid), step


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


_changes: dict[str, int] = {}


def changes_of_steps(site: Site) -> dict[str, int]:
    """How many changes each step makes to the disk, by a run that nobody disturbs; the same at each such site."""
    if _changes:
        return _changes
    site.take(1, size_mb=0.5, seed=1)
    result = site.snakemake(env=hooked(site))
    assert result.code == 0, result.output
    check_whole(site, 1)
    _changes.update((path.name, int(path.read_text())) for path in (site.folder / "counts").iterdir())
    assert set(_changes) == set(STEPS)
    return _changes


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.stat().st_size}


def check_whole(site: Site, number: int, orphans: int = 0) -> None:
    run = f"{number:06d}"
    (stored,) = (site.folder / "store").glob(f"{run}-*")
    found, taken = contents(stored), contents(site.folder / "daq" / run)
    assert len(found) == 8
    assert found.items() <= taken.items()
    assert site.status(number) == "done"
    assert set(site.receipts(run)) == {
        "run.json", "released.json", "live/transferred.json", "live/registered.json",
        *(f"raw/{n}.json" for n in ("processed", "checksums", "stored", "registered")),
    }  # fmt: skip
    own = sorted(e["type"] for e in site.doc(number)["data"] if e["host"] == "testsite")
    assert own == ["live", "raw"]
    assert "claim" not in site.doc(number)["straxflow"]["online"]
    assert len(site.scratch()) <= orphans
    assert not [a for a in site.attempts(run) if a.ended is None]
    outcomes = [(a.product, a.step) for a in site.attempts(run) if a.outcome == "ok"]
    assert len(outcomes) == len(set(outcomes))
    assert not any(p.name.startswith(run) for p in (site.folder / "staging").iterdir())


@pytest.mark.fault(
    group="kill",
    broken="kill -9 of snakemake's main process and of the step at work, at the {place} change that the step "
    "makes to the disk; each of the eight steps in turn",
    left="scratch of dead owners, attempts without an end; never a part of a receipt or of a product under its name",
    next="takes the run over at once and finishes it; no step that had ended is done again",
)
@pytest.mark.slow
@pytest.mark.parametrize("place", ["middle", "last"])
def test_kill_all_in_each_step_one_after_another(site: Site, place: str) -> None:
    counts = changes_of_steps(site)
    site.take(2, size_mb=0.5, seed=1)
    stops = {step: count if place == "last" else (count + 1) // 2 for step, count in counts.items()}
    while stops:
        # one job at a time, so that none goes on while another is stopped
        with site.background("--cores", "1", env=hooked(site, stops)) as running:
            victim, step = stopped_at(site, running)
            running.kill()
            kill(victim)
        print(f"killed {step} at change {stops.pop(step)} of {counts[step]}")
    final = site.snakemake(env=hooked(site))
    assert final.code == 0, final.output
    check_whole(site, 2)
    # the main process told what became of those that nobody else could
    assert len([a for a in site.attempts("000002") if a.outcome == "killed"]) == len(STEPS) - 1


@pytest.mark.fault(
    group="kill",
    broken="kill -9 of snakemake's main process; its {step} job lives on, where nobody can stop it",
    left="the orphan's private scratch; its token is out of date, so it publishes and registers nothing",
    next="finishes the run, beside the orphan and before it",
)
@pytest.mark.slow
@pytest.mark.parametrize("step", ["process", "move_out"])
def test_an_orphan_of_a_killed_invocation_harms_nothing(site: Site, step: str) -> None:
    """The main process is killed, its job lives on, slowly, where nobody can stop it; the rerun overtakes it."""
    counts = changes_of_steps(site)
    site.take(2, size_mb=0.5, seed=1)
    with site.background(env=hooked(site, {step: counts[step] // 2})) as running:
        orphan, _ = stopped_at(site, running)
        running.kill()
        file = site.state().run("000002") / "claim.json"
        file.write_text(file.read_text().replace(this_host(), "elsewhere"))
        rerun = site.snakemake(env=hooked(site))
        assert rerun.code == 0, rerun.output
        assert site.status(2) == "done"
        check_whole(site, 2, orphans=1)
        document, receipts = site.doc(2), site.receipts("000002")
        os.kill(orphan, signal.SIGCONT)
        wait_until(lambda: process_is_gone(orphan))
    check_whole(site, 2)
    assert (site.doc(2), site.receipts("000002")) == (document, receipts)
    assert sorted(str(a.outcome) for a in site.attempts("000002") if a.step == step)[1:] == ["ok"]


@pytest.mark.fault(
    group="kill",
    broken="kill -9 of snakemake's main process; its job lives on",
    left="the job, which is told apart by the batch in its environment",
    next="stops the orphan first, then takes the run over and finishes it",
)
@pytest.mark.slow
def test_an_orphan_here_is_stopped(site: Site) -> None:
    go = site.folder / "go"
    script = f"while [ ! -e {go} ]; do sleep 0.1; done; rsync -am --min-size=1 {{source}}/{{run}}/ {{output}}/data"
    site.configure(products={"raw": {"from": "live", "kind": "command", "command": f'sh -c "{script}"'}})
    site.take(2, size_mb=0.5, seed=1)
    with site.background() as running:
        running.until(lambda: [a for a in site.attempts("000002") if a.step == "process"])
        (batch,) = {a.batch for a in site.attempts("000002")}
        running.kill()
        assert processes_of(batch)
        with site.background() as rerun:
            rerun.until(lambda: not processes_of(batch), 60)
            go.touch()
            result = rerun.wait()
    assert result.code == 0, result.output
    assert [a.outcome for a in site.attempts("000002") if a.step == "process"][1:] == ["ok"]
    assert site.status(2) == "done"


@pytest.mark.fault(
    group="kill",
    broken="kill -9 of main process and step while strax makes data; then of strax alone",
    left="private scratch; strax itself ends with its step",
    next="makes the same data and metadata as in peace",
)
@pytest.mark.slow
def test_kill_while_strax_runs(site: Site) -> None:
    site.configure(products={"raw_records": {"from": "live"}})
    # as large as it takes for strax to be at work still when the blow falls, on a busy machine too
    site.take(1, size_mb=200.0)
    find = strax_of(site)
    with site.background() as running:
        strax = running.until(lambda: find(running.process.pid))
        (step,) = [int(a.owner["pid"]) for a in site.attempts("000001") if a.step == "process"]
        running.kill()
        kill(step)
        # it must not write on behind the rerun's back
        wait_until(lambda: process_is_gone(strax), 5)
    # a second blow, to strax alone: the profile's retry mends it
    with site.background() as running:
        kill(running.until(lambda: find(running.process.pid)))
        result = running.wait()
    assert result.code == 0, result.output
    assert "killed by signal 9 (SIGKILL)" in result.output
    assert site.status(1) == "done"
    assert [a.outcome for a in site.attempts("000001") if a.step == "process"] == ["killed", "failed", "ok"]
    made = site.receipts("000001")["raw_records/processed.json"]
    assert made["records_in"] == made["records_out"]
    assert site.scratch() == []

    # made once more in peace: the same data files and metadata
    before = site.products()
    shutil.rmtree(site.state().run("000001"))
    for folder in (site.folder / "store").glob("0*"):
        shutil.rmtree(folder)
    site.runs.update_one({"number": 1}, {"$set": {"processing_status": "pending"}})
    result = site.snakemake()
    assert result.code == 0, result.output
    assert site.products() == before


def strax_of(site: Site) -> Callable[[int], int | None]:
    """Finds the process that makes strax data: a fork of the invocation's server."""

    def serves(pid: int) -> bool:
        return b"straxflow.straxjob.__main__:main" in Path(f"/proc/{pid}/cmdline").read_bytes()

    def find(main: int) -> int | None:
        for pid in descendants(main):
            with contextlib.suppress(OSError):
                # not one that has ended and serves on
                at_work = Path(f"/proc/{pid}/fd/1").readlink() != Path(os.devnull)
                if at_work and serves(pid) and serves(parent(pid)):
                    return pid
        return None

    return find


def parent(pid: int) -> int:
    return int(process_fields(pid)[1])
