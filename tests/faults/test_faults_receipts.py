"""Receipts that are not what a step wrote: cut short, of another run, of a later version, edited by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from straxflow.receipts import SCHEMA
from tests.faults.checks import nothing_is_lost
from tests.faults.conftest import MakeSite
from tests.site import Site

RECEIPTS = {
    1: "run.json",
    2: "live/transferred.json",
    3: "live/registered.json",
    4: "raw/processed.json",
    5: "raw/checksums.json",
    6: "raw/stored.json",
    7: "raw/registered.json",
    8: "released.json",
}
"""Of each run the receipt that is damaged."""


def cut(file: Path, other: Path) -> None:
    file.write_text(file.read_text()[:-20])


def empty(file: Path, other: Path) -> None:
    file.write_text("")


def of_another_run(file: Path, other: Path) -> None:
    file.write_text(other.read_text())


def of_a_later_version(file: Path, other: Path) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema_version": SCHEMA + 1, "new_key": 1}))


DAMAGES: list[tuple[Callable[[Path, Path], None], str]] = [
    (of_another_run, "is the receipt of run 000009"),
    (of_a_later_version, "upgrade it"),
    (empty, "remove it and name it as a target"),
    (cut, "remove it and name it as a target"),
]


def set_pending(site: Site) -> None:
    site.runs.update_many({"number": {"$lt": 9}}, {"$set": {"processing_status": "pending"}})


@pytest.mark.slow
@pytest.mark.fault(
    group="damage",
    broken="each receipt of a finished run set to pending: cut short, empty, of another run, of a later version",
    left="all data; the receipt as it is; the run failed, its reason names the file and what to do",
    next="once the file is removed: makes it again from the data that are there, or the data from their source",
)
def test_a_receipt_that_cannot_be_trusted_is_named(make_site: MakeSite) -> None:
    site = make_site()
    for number in (*RECEIPTS, 9):
        site.take(number, "led", 0.5)
    first = site.snakemake()
    assert first.code == 0, first.output
    data = site.products()
    files = {n: site.state().run(f"{n:06d}") / name for n, name in RECEIPTS.items()}
    whole = {n: file.read_text() for n, file in files.items()}
    for damage, told in DAMAGES:
        for number, file in files.items():
            file.write_text(whole[number])
            damage(file, site.state().run("000009") / RECEIPTS[number])
        set_pending(site)
        result = site.snakemake()
        assert "Traceback" not in result.output
        # what the run document says is simply written again
        assert site.status(1) == "done", result.output
        for number in range(2, 9):
            assert site.status(number) == "failed", (damage.__name__, RECEIPTS[number])
            assert str(files[number]) in site.reason(number)
            assert told in site.reason(number)
        assert site.products() == data
    for number in range(2, 9):
        files[number].unlink()
    set_pending(site)
    mended = site.snakemake()
    assert mended.code == 0, mended.output
    nothing_is_lost(site, (*RECEIPTS, 9))
    assert site.products() == data


def edit(site: Site, number: int, name: str, change: Callable[[Any], object]) -> None:
    file = site.state().run(f"{number:06d}") / name
    receipt = json.loads(file.read_text())
    change(receipt)
    file.write_text(json.dumps(receipt))


def one_digit(receipt: Any) -> None:
    path, size, digest = receipt["files"][0]
    receipt["files"][0] = [path, size, digest[:-1] + ("0" if digest[-1] != "0" else "1")]


EDITS: dict[int, tuple[str, Callable[[Any], object], str]] = {
    2: ("live/transferred.json", one_digit, "changed since it arrived"),
    3: ("live/transferred.json", lambda r: r["files"].pop(), "surplus"),
    4: ("live/transferred.json", lambda r: r["files"].append(["../../x", 1, "0" * 32]), "is not a plain relative path"),
    5: ("raw/processed.json", lambda r: r["targets"]["raw"].update(bytes=1), "changed since it was made"),
    6: ("raw/processed.json", lambda r: r["targets"]["raw"].update(digest="xxh128:0"), "changed since it was made"),
    7: ("raw/processed.json", lambda r: r["targets"]["raw"].update(folder="../../daq"), "targets.raw.folder"),
    8: ("raw/processed.json", lambda r: r["targets"]["raw"].update(folder="/etc"), "targets.raw.folder"),
    9: ("raw/checksums.json", one_digit, "is not of what was made"),
    10: ("raw/checksums.json", lambda r: r.update(algorithm="md5"), "unknown algorithm"),
    11: ("raw/checksums.json", lambda r: r["files"].pop(), "is not of what was made"),
    12: ("raw/stored.json", lambda r: r.update(location="/etc"), "stored.json of raw says /etc/"),
    13: ("raw/stored.json", lambda r: r.update(folders=["../x"]), "folders.0"),
}


@pytest.mark.slow
@pytest.mark.fault(
    group="damage",
    broken="a receipt edited by hand: a digest, a file left out, a path that leads elsewhere",
    left="the data as they were; nothing under a name or at a place that the receipt made up",
    next="the same, or nothing where data seem damaged, until the receipt is removed",
)
def test_an_edited_receipt_leads_nowhere(make_site: MakeSite) -> None:
    site = make_site()
    for number in (1, *EDITS):
        site.take(number, "led", 0.5)
    begun = site.snakemake(*(f"runs/{n:06d}/{name}" for n, (name, _, _) in EDITS.items()))
    assert begun.code == 0, begun.output
    for number, (name, change, _) in EDITS.items():
        edit(site, number, name, change)
    daq, folder = site.products("daq"), set(site.folder.iterdir())
    result = site.snakemake()
    assert result.code != 0
    assert "Traceback" not in result.output, result.output
    assert site.status(1) == "done"
    for number, (name, _, told) in EDITS.items():
        assert site.status(number) == "failed", name
        assert told in site.reason(number)
        # what was stored and registered before its receipt was edited stays
        own = [str(e["location"]) for e in site.doc(number)["data"] if e["host"] == "testsite"]
        assert all(place.startswith((f"{site.folder}/live", f"{site.folder}/store/{number:06d}-")) for place in own)
        if name != "raw/stored.json":
            assert not [place for place in own if "/store/" in place]
    assert site.products("daq") == daq
    assert set(site.folder.iterdir()) == folder

    for number, (name, _, _) in EDITS.items():
        (site.state().run(f"{number:06d}") / name).unlink()
    site.runs.update_many({}, {"$set": {"processing_status": "pending"}})
    mended = site.snakemake()
    assert mended.code == 0, mended.output
    for name in site.scratch():
        assert ".differs-" in name
    nothing_is_lost(site, (1, *EDITS))
