"""Products damaged between the steps: what one step made is what the next one takes, to the bit, or nothing is taken.

One invocation per point of the chain, over one run of each kind of damage.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.checks import nothing_is_lost
from tests.faults.conftest import MakeSite
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
NUMBERS = range(2, 2 + len(DAMAGES))
GOOD = 1


def damaged_behind(site: Site, receipt: str, place: str) -> dict[int, Path]:
    """Take runs, have them made up to a receipt, and damage each but the first; the folders by number."""
    for number in (GOOD, *NUMBERS):
        site.take(number, "led", 0.5)
    begun = site.snakemake(*(f"runs/{n:06d}/{r}" for n in (GOOD, *NUMBERS) for r in (receipt, "live/registered.json")))
    assert begun.code == 0, begun.output
    folders = {}
    for number, damage in zip(NUMBERS, DAMAGES, strict=True):
        (folders[number],) = (site.folder / place).glob(f"{number:06d}-raw-*")
        damage(folders[number])
    return folders


def own_entries(site: Site, number: int) -> list[str]:
    return sorted(e["type"] for e in site.doc(number)["data"] if e["host"] == "testsite")


@pytest.mark.slow
@pytest.mark.fault(
    group="damage",
    broken="a product in staging after {receipt}: a bit flipped, files cut, missing, swapped, linked away",
    left="the other runs done; of these nothing stored or registered, the live data whole",
    next="nothing; once a person sets them to pending, what is damaged is set aside and made again",
)
@pytest.mark.parametrize(("receipt", "step"), [("raw/processed.json", "checksum"), ("raw/checksums.json", "move_out")])
def test_a_product_damaged_in_staging_is_not_stored(make_site: MakeSite, receipt: str, step: str) -> None:
    site = make_site()
    folders = damaged_behind(site, receipt, "staging")
    result = site.snakemake()
    assert result.code != 0
    assert "Traceback" not in result.output
    assert site.status(GOOD) == "done"
    for number, folder in folders.items():
        assert site.status(number) == "failed"
        assert [a.outcome for a in site.attempts(f"{number:06d}") if a.step == step] == ["damaged"]
        assert folder.name in site.reason(number)
        assert own_entries(site, number) == ["live"]
        assert not list((site.folder / "store").glob(f"*{number:06d}-*"))
        assert folder.is_dir()
    assert site.snakemake().jobs == []

    site.runs.update_many({"number": {"$in": list(NUMBERS)}}, {"$set": {"processing_status": "pending"}})
    again = site.snakemake()
    assert again.code == 0, again.output
    aside = [name for name in site.scratch() if name.startswith("staging/.differs-")]
    assert len(aside) == len(NUMBERS)
    for name in aside:
        shutil.rmtree(site.folder / name)
    nothing_is_lost(site, (GOOD, *NUMBERS))


@pytest.mark.slow
@pytest.mark.fault(
    group="damage",
    broken="a product in the store, after it was read back there and before its staging copy was dropped",
    left="its staging copy and the live data whole; the run failed, its reason names the file",
    next="sets the broken copy aside and stores the product again from staging",
)
def test_a_product_damaged_in_the_store_is_stored_again_from_staging(make_site: MakeSite) -> None:
    site = make_site()
    folders = damaged_behind(site, "raw/stored.json", "store")
    result = site.snakemake("runs/000001/released.json", *(f"runs/{n:06d}/released.json" for n in NUMBERS))
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
    assert len(aside) == len(NUMBERS)
    for name in aside:
        shutil.rmtree(site.folder / name)
    nothing_is_lost(site, (GOOD, *NUMBERS))


@pytest.mark.slow
@pytest.mark.fault(
    group="damage",
    broken="the live copy here, after its arrival was verified",
    left="no product of it; the DAQ's copy",
    next="nothing; once a person sets the run to pending, the copy is set aside and brought again",
)
def test_live_data_damaged_after_their_arrival_are_brought_again(make_site: MakeSite) -> None:
    site = make_site()
    for number in (GOOD, 2):
        site.take(number, "led", 0.5)
    begun = site.snakemake(*(f"runs/{n:06d}/live/registered.json" for n in (GOOD, 2)))
    assert begun.code == 0, begun.output
    flip(some_file(site.folder / "live" / "000002"))
    result = site.snakemake()
    assert result.code != 0
    assert (site.status(GOOD), site.status(2)) == ("done", "failed")
    assert "changed since it arrived" in site.reason(2)
    assert own_entries(site, 2) == ["live"]
    assert site.snakemake().jobs == []
    site.runs.update_one({"number": 2}, {"$set": {"processing_status": "pending"}})
    again = site.snakemake()
    assert again.code == 0, again.output
    (aside,) = site.scratch()
    assert aside.startswith("live/.differs-000002~")
    shutil.rmtree(site.folder / aside)
    nothing_is_lost(site, (GOOD, 2))
