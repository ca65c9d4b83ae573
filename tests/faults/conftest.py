"""Sites to be broken."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from tests.site import QUICK_PRODUCTS, Site

RAW = {"raw": QUICK_PRODUCTS["raw"]}
MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(tmp_path: Path, rundb_server: RunDbServer, sshd: Sshd) -> Iterator[MakeSite]:
    """Makes sites with one quick product; keywords are settings, `rundb` and `sshd` parts of one's own."""
    sites: list[Site] = []

    def make(*, rundb: RunDbServer = rundb_server, sshd: Sshd = sshd, **settings: Any) -> Site:
        site = Site(tmp_path / f"site{len(sites)}", rundb, sshd, settings={"products": RAW, **settings})
        sites.append(site)
        return site

    yield make
    for site in sites:
        site.close()


@pytest.fixture
def site(make_site: MakeSite) -> Site:
    """A site with one quick product."""
    return make_site()


@pytest.fixture(scope="session")
def shim(lab_folder: Path) -> Path:
    """The failing disk and the wrong clock of shim.c, for LD_PRELOAD."""
    library = lab_folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library
