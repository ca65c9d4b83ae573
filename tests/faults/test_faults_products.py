"""Products damaged between the steps: what one step made is what the next one takes, to the bit, or nothing is taken.

An invocation over one run of each kind of damage at each point of the chain.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from tests.faults.checks import nothing_is_lost
from tests.faults.conftest import RAW, MakeSite
from tests.site import Site


def flip(file: Path) -> None:
    """Flip one bit; size and times stay, as on a bad disk."""
    info = file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))


def some_file(folder: Path) -> Path:
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def swap(folder: Path) -> None:
    """Two files have each other's content."""
    one, other = sorted(p for p in folder.rglob("*") if p.is_file())[:2]
    aside = folder.parent / "aside"
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def link_away(folder: Path) -> None:
    file = some_file(folder)
    (folder.parent / "elsewhere").mkdir(exist_ok=True)
    moved = file.rename(folder.parent / "elsewhere" / folder.name)
    file.symlink_to(moved)


DAMAGES: list[Callable[[Path], object]] = [
    lambda folder: flip(some_file(folder)),
    lambda folder: os.truncate(some_file(folder), 10),
    lambda folder: some_file(folder).unlink(),
    swap,
    link_away,
]
GOOD = 1
BEHIND = {
    "raw/processed.json": range(11, 16),
    "raw/checksums.json": range(21, 26),
    "live/registered.json": range(31, 32),
}
"""Runs that come as far as this receipt, and are damaged then: one for each kind of damage, or the first kind alone."""
PLACES = {"raw/processed.json": "staging", "raw/checksums.json": "staging", "live/registered.json": "live"}


def take_and_damage(site: Site, runs: dict[str, range], places: dict[str, str]) -> dict[int, Path]:
    """Take runs, have them made up to their receipt, and damage each but the good one; the folders by number."""
    behind = {number: receipt for receipt, numbers in runs.items() for number in numbers}
    for number in (GOOD, *behind):
        site.take(number, "led", 0.5)
    receipts = {(number, name) for number, receipt in behind.items() for name in (receipt, "live/registered.json")}
    begun = site.snakemake(*(f"runs/{number:06d}/{name}" for number, name in sorted(receipts)))
    assert begun.code == 0, begun.output
    folders = {}
    for receipt, numbers in runs.items():
        for number, damage in zip(numbers, DAMAGES, strict=False):
            (folders[number],) = (site.folder / places[receipt]).glob(f"{number:06d}*")
            damage(folders[number])
    return folders


def own_entries(document: dict[str, Any]) -> list[str]:
    return sorted(e["type"] for e in document["data"] if e["host"] == "testsite")


@dataclass(frozen=True)
class Worked:
    """What an invocation over damaged runs left, and the site after a person had set them to pending."""

    site: Site
    folders: dict[int, Path]
    documents: dict[int, dict[str, Any]]
    ended: dict[int, list[tuple[str, str | None]]]
    """Steps of each run with their outcomes."""
    stored: list[str]
    aside: list[str]
    """What was set aside in the end."""


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory, rundb_server: RunDbServer, sshd: Sshd) -> Iterator[Worked]:
    site = Site(tmp_path_factory.mktemp("damaged") / "site", rundb_server, sshd, settings={"products": RAW})
    folders = take_and_damage(site, BEHIND, PLACES)
    result = site.snakemake()
    assert result.code != 0
    assert "Traceback" not in result.output
    assert all(folder.is_dir() for folder in folders.values())
    documents = {number: site.doc(number) for number in (GOOD, *folders)}
    ended = {n: [(a.step, a.outcome) for a in site.attempts(f"{n:06d}")] for n in folders}
    stored = [path.name for path in (site.folder / "store").iterdir()]
    assert site.snakemake().jobs == []

    site.runs.update_many({"number": {"$in": list(folders)}}, {"$set": {"processing_status": "pending"}})
    again = site.snakemake()
    assert again.code == 0, again.output
    aside = site.scratch()
    for name in aside:
        shutil.rmtree(site.folder / name)
    yield Worked(site, folders, documents, ended, stored, aside)
    site.close()


@pytest.mark.slow
@pytest.mark.fault(
    group="damage",
    broken="a product in staging after {receipt}: a bit flipped, files cut, missing, swapped, linked away",
    left="the other runs done; of these nothing stored or registered, the live data whole",
    next="nothing; once a person sets them to pending, what is damaged is set aside and made again",
)
@pytest.mark.parametrize(("receipt", "step"), [("raw/processed.json", "checksum"), ("raw/checksums.json", "move_out")])
def test_a_product_damaged_in_staging_is_not_stored(worked: Worked, receipt: str, step: str) -> None:
    assert worked.documents[GOOD]["processing_status"]["status"] == "done"
    for number in BEHIND[receipt]:
        document = worked.documents[number]
        assert document["processing_status"]["status"] == "failed"
        assert [outcome for name, outcome in worked.ended[number] if name == step] == ["damaged"]
        assert worked.folders[number].name in document["processing_status"]["reason"]
        assert own_entries(document) == ["live"]
        assert not [name for name in worked.stored if f"{number:06d}-" in name]
        assert len([name for name in worked.aside if name.startswith(f"staging/.differs-{number:06d}-")]) == 1
    nothing_is_lost(worked.site, (GOOD, *BEHIND[receipt]))


@pytest.mark.slow
@pytest.mark.fault(
    group="damage",
    broken="the live copy here, after its arrival was verified",
    left="no product of it; the DAQ's copy",
    next="nothing; once a person sets the run to pending, the copy is set aside and brought again",
)
def test_live_data_damaged_after_their_arrival_are_brought_again(worked: Worked) -> None:
    (number,) = BEHIND["live/registered.json"]
    document = worked.documents[number]
    assert document["processing_status"]["status"] == "failed"
    assert "changed since it arrived" in document["processing_status"]["reason"]
    assert own_entries(document) == ["live"]
    assert len([name for name in worked.aside if name.startswith(f"live/.differs-{number:06d}~")]) == 1
    nothing_is_lost(worked.site, (GOOD, number))


@pytest.mark.slow
@pytest.mark.fault(
    group="damage",
    broken="a product in the store, after it was read back there and before its staging copy was dropped",
    left="its staging copy and the live data whole; the run failed, its reason names the file",
    next="sets the broken copy aside and stores the product again from staging",
)
def test_a_product_damaged_in_the_store_is_stored_again_from_staging(make_site: MakeSite) -> None:
    site = make_site()
    folders = take_and_damage(site, {"raw/stored.json": range(11, 16)}, {"raw/stored.json": "store"})
    result = site.snakemake(*(f"runs/{n:06d}/released.json" for n in (GOOD, *folders)))
    assert result.code != 0
    assert "Traceback" not in result.output
    assert site.status(GOOD) == "done"
    for number, folder in folders.items():
        assert "raw in the store differs from its manifest" in result.output
        assert (site.folder / "staging" / folder.name).is_dir()
        assert "released.json" not in site.receipts(f"{number:06d}")
    again = site.snakemake()
    assert again.code == 0, again.output
    aside = [name for name in site.scratch() if name.startswith("store/.differs-")]
    assert len(aside) == len(folders)
    for name in aside:
        shutil.rmtree(site.folder / name)
    nothing_is_lost(site, (GOOD, *folders))
