"""Disks that are full, read-only, not mounted, slow or broken: each folder of a site, and the DAQ's."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from tests.faults.checks import nothing_is_lost, told_clearly
from tests.site import Result, Site

PLACES = ("live", "staging", "store", "state")


@contextlib.contextmanager
def disk(site: Site, place: str, size: str) -> Iterator[Path]:
    """Make a folder of a site a small disk of its own, with what it holds."""
    folder = site.folder / place
    kept = site.folder / f"{place}.kept"
    shutil.copytree(folder, kept, symlinks=True)
    with tmpfs(folder, size):
        shutil.copytree(kept, folder, symlinks=True, dirs_exist_ok=True)
        yield folder


@contextlib.contextmanager
def tmpfs(folder: Path, size: str = "1m") -> Iterator[None]:
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
    if done.returncode and "CI" not in os.environ:
        pytest.skip("may not mount here")
    assert done.returncode == 0, done.stderr
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", folder], check=True)


def fill(folder: Path, left: int) -> Path:
    """Fill a disk, but for so many bytes."""
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(max(shutil.disk_usage(folder).free - left, 0)))
    return ballast


def waits(site: Site, result: Result, *words: str) -> None:
    """The run waits as pending, uncounted, with a reason of these words."""
    told_clearly(result, *words)
    assert site.status(1) == "pending", site.doc(1)["processing_status"]
    for word in words:
        assert word in site.reason(1)
    assert "failures" not in site.doc(1)["straxflow"]["online"]


@pytest.fixture
def untold(site: Site) -> Site:
    """A site with a run of which nobody knows the size, so that it is not refused before it begins."""
    site.take(1, "led", 2.0)
    site.runs.update_one({"number": 1}, {"$unset": {"rate": ""}})
    return site


@pytest.mark.slow
@pytest.mark.fault(
    group="disks",
    broken="the disks of live, staging and store run full while they are written to, one after another",
    left="nothing half; what had arrived of live data stays in hidden scratch; the run waits as pending, uncounted, "
    "with a reason that names the folder",
    next="goes on, as soon as there is room",
)
def test_full(untold: Site) -> None:
    site = untold
    with contextlib.ExitStack() as disks:
        for place in ("live", "staging", "store"):
            folder = disks.enter_context(disk(site, place, "20m"))
            ballast = fill(folder, 300_000)
            waits(site, site.snakemake(), "No space left on device", str(folder))
            ballast.unlink()
        assert site.snakemake().code == 0
        nothing_is_lost(site, done=[1])


@pytest.mark.slow
@pytest.mark.fault(
    group="disks",
    broken="the disk of the state folder is full as an invocation begins",
    left="everything as it was; no run is touched",
    next="finishes, as soon as there is room",
)
def test_full_of_the_state_folder_from_the_start(site: Site) -> None:
    site.take(1, "led", 0.5)
    before = site.dump_database()
    with disk(site, "state", "20m") as folder:
        ballast = fill(folder, 0)
        told_clearly(site.snakemake(), "No space left on device", str(folder), "free some space")
        assert site.dump_database() == before
        ballast.unlink()
        assert site.snakemake().code == 0
        nothing_is_lost(site, done=[1])


@pytest.mark.slow
@pytest.mark.fault(
    group="disks",
    broken="the disk of the state folder runs full in the middle of the work",
    left="data without their receipt; claims that are given back",
    next="adopts what was made, and finishes, as soon as there is room",
)
def test_full_of_the_state_folder_at_work(site: Site) -> None:
    """The product's own program fills it, so that nothing can be written from then on."""
    ballast = site.folder / "state" / "ballast"
    copy = "rsync -am --min-size=1 {source}/{run}/ {output}/data"
    line = f"sh -c 'test -e {site.folder}/filled || cat /dev/zero > {ballast}; touch {site.folder}/filled; {copy}'"
    site.configure(products={"raw": {"from": "live", "kind": "command", "command": line}})
    site.take(1, "led", 0.5)
    with disk(site, "state", "20m") as folder:
        result = site.snakemake()
        print(result.output)
        told_clearly(result, "No space left on device", str(folder))
        assert site.status(1) == "pending", site.doc(1)["processing_status"]
        ballast.unlink()
        again = site.snakemake()
        assert again.code == 0, again.output
        nothing_is_lost(site, done=[1])


@pytest.mark.slow
@pytest.mark.fault(
    group="disks",
    broken="the disks of live, staging, store and the state folder are read-only, one after another",
    left="everything as it was; the run waits as pending, uncounted",
    next="goes on, as soon as it can be written to",
)
def test_read_only(site: Site) -> None:
    site.take(1, "led", 0.5)
    with contextlib.ExitStack() as disks:
        for place in PLACES:
            folder = disks.enter_context(disk(site, place, "20m"))
            remount(folder, "ro")
            result = site.snakemake()
            told_clearly(result, "Read-only file system", str(folder))
            if place != "state":
                waits(site, result, "Read-only file system", str(folder))
            remount(folder, "rw")
        assert site.snakemake().code == 0
        nothing_is_lost(site, done=[1])


@pytest.mark.slow
@pytest.mark.fault(
    group="disks",
    broken="the disk of live, staging, store or the state folder is not mounted: an empty folder stands in its place",
    left="everything as it was, and no run is touched; without the store the run waits as pending, uncounted; "
    "nothing is written into the empty folder",
    next="finishes, as soon as it is mounted",
)
def test_unmounted(site: Site) -> None:
    site.take(1, "led", 0.5)
    assert site.snakemake("runs/000001/live/registered.json").code == 0
    before = site.dump_database()
    data = {name: times for name, times in site.dump_files().items() if not name.startswith("state/")}
    for place in ("live", "staging", "state", "store"):
        folder = site.folder / place
        with tmpfs(folder):
            result = site.snakemake()
            told_clearly(result, str(folder), "mounted?")
            assert list(folder.iterdir()) == []
        if place == "store":  # it may be on another host: only what needs it asks for it
            waits(site, result, str(folder), "mounted?")
        else:
            assert site.dump_database() == before
            assert data.items() <= site.dump_files().items()
    assert site.snakemake().code == 0
    nothing_is_lost(site, done=[1])


@pytest.mark.slow
@pytest.mark.fault(
    group="disks",
    broken="the disk of staging, then that of the store, goes away while a product is made: there is an empty folder",
    left="everything as it was; nothing is written into the empty folder",
    next="goes on, as soon as it is mounted again",
)
def test_unmounted_at_work(site: Site) -> None:
    begun, go = site.folder / "begun", site.folder / "go"
    copy = "rsync -am --min-size=1 {source}/{run}/ {output}/data"
    line = f"sh -c 'touch {begun}; until test -e {go}; do sleep 0.1; done; {copy}'"
    site.configure(products={"raw": {"from": "live", "kind": "command", "command": line}})
    site.take(1, "led", 0.5)
    for place in ("staging", "store"):
        with site.background() as running:
            running.until(begun.exists)
            with tmpfs(site.folder / place):
                go.touch()
                result = running.wait()
                told_clearly(result, str(site.folder / place))
                assert list((site.folder / place).iterdir()) == []
        # what the program says of staging is taken for a failure of its own
        assert site.status(1) == ("failed" if place == "staging" else "pending")
        assert str(site.folder / place) in site.reason(1)
        begun.unlink()
        if place == "staging":
            go.unlink()
    assert site.snakemake().code == 0
    nothing_is_lost(site, done=[1])


# --- errors that no mount can make: a library that is loaded before all others -----------------------------


def broken(shim: Path, fault: str) -> dict[str, str]:
    return {"LD_PRELOAD": str(shim), "FAULT": fault}


@dataclass(frozen=True)
class Struck:
    """What became of runs of which each met a fault of its own, in one invocation over all; one more met none."""

    site: Site
    result: Result
    runs: dict[str, int]
    """Run numbers by fault."""
    standings: dict[int, dict[str, Any]]
    reached: list[str]
    """What stood in the store, or was on its way to anywhere."""


@contextlib.contextmanager
def struck(
    folder: Path, rundb: RunDbServer, sshd: Sshd, shim: Path, faults: Mapping[str, str], **daq: Any
) -> Iterator[Struck]:
    """Let runs meet these faults, `{run}` in them being the run; a second invocation, without any, finishes them."""
    line = "rsync -am --min-size=1 {source}/{run} {output}/data"
    site = Site(
        folder, rundb, sshd, settings={"products": {"raw": {"from": "live", "kind": "command", "command": line}}}
    )
    site.settings["daq"] |= daq
    site.configure()
    runs = {name: number for number, name in enumerate(faults, 1)}
    for number in (*runs.values(), WHOLE):
        site.take(number, "led", 0.5)
    told = ";".join(fault.format(run=f"{runs[name]:06d}") for name, fault in faults.items())
    result = site.snakemake(env=broken(shim, told))
    standings = {n: site.doc(n) for n in (*runs.values(), WHOLE)}
    stored = [path.name for path in (site.folder / "store").iterdir()]
    reached = sorted(stored + site.scratch())
    yield Struck(site, result, runs, standings, reached)
    site.close()


WHOLE = 99
EIO, EDQUOT, EMFILE = errno.EIO, errno.EDQUOT, errno.EMFILE
BROKEN = {
    "EIO at a read of the DAQ's disk": (f"read:{EIO}:/daq/{{run}}/0", "Input/output error"),
    "EIO at a read of the live copy": (f"read:{EIO}:/live/{{run}}/0", "Input/output error"),
    "EIO at a read of staging": (f"read:{EIO}:/staging/{{run}}-raw", "Input/output error"),
    "EIO at an fsync of live data": (f"fsync:{EIO}:/live/.incoming-{{run}}", "Input/output error"),
    "EIO at an fsync of the store": (f"fsync:{EIO}:/store/.incoming-{{run}}", "Input/output error"),
    "a file reads back short in the store": ("read:end:/store/.incoming-{run}", "read back differently"),
}


@pytest.fixture(scope="module")
def broken_disks(
    tmp_path_factory: pytest.TempPathFactory, rundb_server: RunDbServer, sshd: Sshd, shim: Path
) -> Iterator[Struck]:
    faults = {name: fault for name, (fault, _) in BROKEN.items()}
    # the DAQ's disk is mounted here: what sshd starts has no shim
    with struck(tmp_path_factory.mktemp("broken"), rundb_server, sshd, shim, faults, ssh=None) as all_of_them:
        yield all_of_them


@pytest.mark.slow
@pytest.mark.fault(
    group="disks",
    broken="{name}",
    left="all copies that were whole; the run is failed, with a reason that names the file; another run is done",
    next="finishes, as soon as the disk is well",
)
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_disk(broken_disks: Struck, name: str) -> None:
    number, word = broken_disks.runs[name], BROKEN[name][1]
    told_clearly(broken_disks.result, word, f"{number:06d}")
    standing = broken_disks.standings[number]["processing_status"]
    assert standing["status"] == "failed"
    assert word in standing["reason"]
    assert not [reached for reached in broken_disks.reached if reached.startswith(f"{number:06d}")]
    if "fsync" in name:
        left = [reached for reached in broken_disks.reached if f"-{number:06d}" in reached]
        assert left == [], "what could not be flushed must not serve the next attempt"
    finished(broken_disks, number)


LIMITS = {
    "EDQUOT at a write of live data": (f"write:{EDQUOT}:/live/.incoming-{{run}}", "Disk quota exceeded"),
    "EDQUOT at a write of a product": (f"write:{EDQUOT}:/data/{{run}}/", "Disk quota exceeded"),
    "EDQUOT at a write to the store": (f"write:{EDQUOT}:/store/.incoming-{{run}}", "Disk quota exceeded"),
    "too many open files": (f"open:{EMFILE}:/live/{{run}}/", "Too many open files"),
}


@pytest.fixture(scope="module")
def limits(
    tmp_path_factory: pytest.TempPathFactory, rundb_server: RunDbServer, sshd: Sshd, shim: Path
) -> Iterator[Struck]:
    faults = {name: fault for name, (fault, _) in LIMITS.items()}
    with struck(tmp_path_factory.mktemp("limits"), rundb_server, sshd, shim, faults) as all_of_them:
        yield all_of_them


@pytest.mark.slow
@pytest.mark.fault(
    group="disks",
    broken="{name}",
    left="all that was whole; the run waits as pending, uncounted, with a reason that names the file",
    next="finishes, as soon as there is room",
)
@pytest.mark.parametrize("name", LIMITS)
def test_a_limit(limits: Struck, name: str) -> None:
    number, word = limits.runs[name], LIMITS[name][1]
    told_clearly(limits.result, word, f"{number:06d}")
    document = limits.standings[number]
    assert document["processing_status"]["status"] == "pending"
    assert word in document["processing_status"]["reason"]
    assert "failures" not in document["straxflow"]["online"]
    finished(limits, number)


def finished(struck: Struck, number: int) -> None:
    """Once no disk fails any more, one plain run finishes this one and all the others."""
    site = struck.site
    assert struck.standings[WHOLE]["processing_status"]["status"] == "done"
    if site.status(number) != "done":
        again = site.snakemake()
        assert again.code == 0, again.output
    nothing_is_lost(site, done=[number, WHOLE])


@pytest.mark.slow
@pytest.mark.fault(
    group="disks",
    broken="{id}",
    left="nothing amiss",
    next="needs none: it is slower, and done",
)
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("write:slow:/site0/st", id="slow writes (50 ms each) to state, staging and store"),
        pytest.param("read:half:/site0/", id="reads give half of what was asked for"),
        pytest.param("write:half:/site0/", id="writes take half of what was given"),
    ],
)
def test_a_slow_disk(site: Site, shim: Path, fault: str) -> None:
    site.take(1, "led", 0.5)
    result = site.snakemake(env=broken(shim, fault))
    assert result.code == 0, result.output
    nothing_is_lost(site, done=[1])
