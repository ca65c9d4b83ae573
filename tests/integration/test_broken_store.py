"""The store's copy of a product broke, or is of another time than the one here: what may be taken for it again."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from tests.integration.test_safety import flip, largest
from tests.site import Result, Site

RAW_RECORDS = {"raw_records": {"from": "live"}}
WITH_PEAKS = {**RAW_RECORDS, "peaks": {"from": "raw_records"}}
MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(tmp_path: Path, rundb_server: RunDbServer, sshd: Sshd) -> Iterator[MakeSite]:
    sites: list[Site] = []

    def make(**settings: Any) -> Site:
        settings = {"products": RAW_RECORDS, **settings}
        sites.append(Site(tmp_path / f"site{len(sites)}", rundb_server, sshd, settings=settings))
        site = sites[-1]
        site.take(1, "led", 0.5)
        first = site.snakemake()
        assert first.code == 0, first.output
        return site

    yield make
    for site in sites:
        site.close()


def break_in_store(site: Site) -> None:
    """Flip a bit of the product in the store, of which no copy is in staging any more."""
    (folder,) = (site.folder / "store").glob("000001-raw_records-*")
    assert not list((site.folder / "staging").glob("0*"))
    flip(largest(folder))


def once_more(site: Site) -> Result:
    site.runs.update_many({}, {"$set": {"processing_status": "pending"}})
    return site.snakemake()


def whole(site: Site) -> dict[str, str]:
    """Digests of the raw records in the store."""
    return {name: digest for name, digest in site.products().items() if "-raw_records-" in name}


def check_lists(site: Site, product: str, algorithm: str = "xxh128") -> None:
    tool = {"xxh128": "xxhsum", "sha256": "sha256sum"}[algorithm]
    sums = site.state().run("000001") / product / f"{algorithm}sums.txt"
    checked = subprocess.run([tool, "-c", str(sums)], cwd=site.folder / "store", capture_output=True, check=False)
    assert checked.returncode == 0, checked


@pytest.mark.fault(
    group="damage",
    broken="a bit flipped in the store, before another product is to be made from it, or with another `checksum:` set",
    left="the broken copy, set aside; nothing is made from it, or registered of it",
    next="makes the product again from its source, and then what was wanted",
)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "algorithm"),
    [({"products": WITH_PEAKS}, "xxh128"), ({"checksum": "sha256"}, "sha256"), ({}, "xxh128")],
    ids=["a product more", "another algorithm", "nothing"],
)
def test_what_broke_in_the_store_is_not_taken_again(make_site: MakeSite, change: Any, algorithm: str) -> None:
    site = make_site()
    stored = whole(site)
    break_in_store(site)
    site.configure(**change)
    again = once_more(site)
    assert again.code == 0, again.output
    assert site.status(1) == "done"
    receipts = site.receipts("000001")
    assert receipts["raw_records/processed.json"]["adopted"] is None
    assert whole(site) == stored
    assert len(list((site.folder / "store").glob(".differs-*"))) == 1
    for product in site.config.products:
        check_lists(site, product, algorithm)


@pytest.mark.slow
def test_what_broke_in_the_store_and_has_no_source_is_not_registered(make_site: MakeSite) -> None:
    site = make_site(release={"live": "drop"})
    break_in_store(site)
    (site.folder / "daq" / "000001").rename(site.folder / "lost")
    site.configure(products=WITH_PEAKS, checksum="sha256")
    entries = site.doc(1)["data"]
    failed = once_more(site)
    assert failed.code != 0
    assert site.status(1) == "failed"
    assert site.doc(1)["data"] == entries
    assert not list((site.folder / "store").glob("000001-peaks-*"))
    (site.folder / "lost").rename(site.folder / "daq" / "000001")
    again = once_more(site)
    assert again.code == 0, again.output
    assert site.status(1) == "done"


@pytest.mark.slow
def test_a_broken_staging_copy_without_receipts_is_set_aside(make_site: MakeSite) -> None:
    site = make_site(release={"staging": "keep"})
    stored = whole(site)
    (folder,) = (site.folder / "staging").glob("000001-raw_records-*")
    flip(largest(folder))
    site.forget("000001", "raw_records/processed.json")
    again = once_more(site)
    assert again.code == 0, again.output
    # the store's copy is whole
    assert str(site.folder / "store") in site.receipts("000001")["raw_records/processed.json"]["adopted"]
    assert whole(site) == stored
    assert {n: d for n, d in site.products("staging").items() if "raw_records" in n} == stored
    assert len(list((site.folder / "staging").glob(".differs-*"))) == 1


@pytest.mark.slow
def test_an_adopted_copy_backs_the_live_data_and_is_a_source(make_site: MakeSite) -> None:
    site = make_site()
    stored = whole(site)
    metadata = next((site.folder / "store").glob("000001-raw_records-*/*-metadata.json"))
    as_made = metadata.read_bytes()
    site.configure(release={"live": "drop"})
    redone = site.command(
        "straxflow", "--configfile", "config/config.yaml", "redo", "1", "--from", "process", "--reason", "a test"
    )
    assert redone.code == 0, redone.output
    assert site.status(1) == "done"
    assert site.receipts("000001")["raw_records/stored.json"]["adopted"]
    assert str(site.folder / "live" / "000001") in site.receipts("000001")["released.json"]["dropped"]
    assert metadata.read_bytes() == as_made
    check_lists(site, "raw_records")

    site.configure(products=WITH_PEAKS)
    more = once_more(site)
    assert more.code == 0, more.output
    assert site.status(1) == "done"
    assert not [job for job in more.jobs if job.endswith("/raw_records")]
    assert not list((site.folder / "staging").glob("0*"))
    assert whole(site) == stored

    # its metadata are guarded as any other file is
    flip(metadata)
    again = once_more(site)
    assert again.code == 0, again.output
    assert site.receipts("000001")["raw_records/stored.json"]["adopted"] == []
    assert whole(site) == stored
