"""Disks that are full, read-only, not mounted, slow or broken: each folder of a site, and the DAQ's."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

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
    broken="the disk of {place} runs full while it is written to",
    left="nothing half; what had arrived of live data stays in hidden scratch; the run waits as pending, uncounted, "
    "with a reason that names the folder",
    next="finishes, as soon as there is room",
)
@pytest.mark.parametrize("place", ["live", "staging", "store"])
def test_full(untold: Site, place: str) -> None:
    site = untold
    with disk(site, place, "20m") as folder:
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
    broken="the disk of {place} is read-only",
    left="everything as it was; the run waits as pending, uncounted",
    next="finishes, as soon as it can be written to",
)
@pytest.mark.parametrize("place", PLACES)
def test_read_only(site: Site, place: str) -> None:
    site.take(1, "led", 0.5)
    with disk(site, place, "20m") as folder:
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
    broken="the disk of {place} is not mounted: an empty folder stands in its place",
    left="everything as it was; nothing is written into the empty folder, and no run is touched",
    next="finishes, as soon as it is mounted",
)
@pytest.mark.parametrize("place", PLACES)
def test_unmounted(site: Site, place: str) -> None:
    site.take(1, "led", 0.5)
    assert site.snakemake("runs/000001/live/registered.json").code == 0
    folder = site.folder / place
    with tmpfs(folder):
        result = site.snakemake()
        told_clearly(result, str(folder), "mounted?")
        assert list(folder.iterdir()) == []
    assert site.snakemake().code == 0
    nothing_is_lost(site, done=[1])


@pytest.mark.slow
@pytest.mark.fault(
    group="disks",
    broken="the disk of {place} goes away while a product is made: an empty folder stands in its place",
    left="everything as it was; nothing is written into the empty folder",
    next="finishes, as soon as it is mounted again",
)
@pytest.mark.parametrize("place", ["staging", "store"])
def test_unmounted_at_work(site: Site, place: str) -> None:
    begun, go = site.folder / "begun", site.folder / "go"
    copy = "rsync -am --min-size=1 {source}/{run}/ {output}/data"
    line = f"sh -c 'touch {begun}; until test -e {go}; do sleep 0.1; done; {copy}'"
    site.configure(products={"raw": {"from": "live", "kind": "command", "command": line}})
    site.take(1, "led", 0.5)
    with site.background() as running:
        running.until(begun.exists)
        with tmpfs(site.folder / place):
            go.touch()
            result = running.wait()
            told_clearly(result, str(site.folder / place))
            assert list((site.folder / place).iterdir()) == []
    assert site.status(1) in ("pending", "failed")
    assert site.snakemake().code == 0
    nothing_is_lost(site, done=[1])


# --- errors that no mount can make: a library that is loaded before all others -----------------------------


def broken(shim: Path, fault: str) -> dict[str, str]:
    return {"LD_PRELOAD": str(shim), "FAULT": fault}


EIO, EDQUOT, EMFILE = errno.EIO, errno.EDQUOT, errno.EMFILE


@pytest.mark.slow
@pytest.mark.fault(
    group="disks",
    broken="{id}",
    left="all copies that were whole; the run is failed, with a reason that names the file; another run is done, "
    "unless its files are struck too",
    next="finishes, as soon as the disk is well",
)
@pytest.mark.parametrize(
    ("fault", "word"),
    [
        pytest.param(f"read:{EIO}:/site0/daq/000001/0", "Input/output error", id="EIO at a read of the DAQ's disk"),
        pytest.param(f"read:{EIO}:/site0/live/000001/0", "Input/output error", id="EIO at a read of the live copy"),
        pytest.param(f"read:{EIO}:/site0/staging/000001-raw", "Input/output error", id="EIO at a read of staging"),
        pytest.param(f"fsync:{EIO}:/site0/live/.incoming", "Input/output error", id="EIO at an fsync of live data"),
        pytest.param(f"fsync:{EIO}:/site0/store/.incoming", "Input/output error", id="EIO at an fsync of the store"),
        pytest.param(
            "read:end:/site0/store/.incoming", "read back differently", id="a file reads back short in the store"
        ),
    ],
)
def test_a_broken_disk(site: Site, shim: Path, fault: str, word: str) -> None:
    site.settings["daq"].pop("ssh")
    site.configure()
    for number in (1, 2):
        site.take(number, "led", 0.5)
    result = site.snakemake(env=broken(shim, fault))
    told_clearly(result, word, "000001")
    assert site.status(1) == "failed"
    assert site.status(2) == ("done" if "000001" in fault else "failed")
    assert word in site.reason(1)
    assert not list((site.folder / "store").glob("000001*"))
    if fault.startswith("fsync"):
        assert site.scratch() == [], "what could not be flushed must not serve the next attempt"
    again = site.snakemake()
    assert again.code == 0, again.output
    nothing_is_lost(site, done=[1, 2])


@pytest.mark.slow
@pytest.mark.fault(
    group="disks",
    broken="{id}",
    left="all that was whole; the run waits as pending, uncounted, with a reason that names the file",
    next="finishes, as soon as there is room",
)
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param(f"write:{EDQUOT}:/site0/live/", ["Disk quota exceeded"], id="EDQUOT at a write of live data"),
        pytest.param(f"write:{EDQUOT}:/site0/staging/", ["Disk quota exceeded"], id="EDQUOT at a write of a product"),
        pytest.param(f"write:{EDQUOT}:/site0/store/", ["Disk quota exceeded"], id="EDQUOT at a write to the store"),
        pytest.param(f"open:{EMFILE}:/site0/live/000001/", ["Too many open files"], id="too many open files"),
    ],
)
def test_a_limit(site: Site, shim: Path, fault: str, words: list[str]) -> None:
    site.take(1, "led", 0.5)
    waits(site, site.snakemake(env=broken(shim, fault)), *words)
    again = site.snakemake()
    assert again.code == 0, again.output
    nothing_is_lost(site, done=[1])


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
