"""What the run database shows while runs are worked on, by the literal command line."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from straxflow.rundb.client import connect
from straxflow.rundb.history import history_of
from tests.site import Site

MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(tmp_path: Path, rundb_server: RunDbServer, sshd: Sshd) -> Iterator[MakeSite]:
    sites: list[Site] = []

    def make(server: RunDbServer = rundb_server, **settings: Any) -> Site:
        sites.append(Site(tmp_path / f"site{len(sites)}", server, sshd, settings=settings))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


def waiting(flag: Path) -> dict[str, Any]:
    """A product that is made as soon as a file is there."""
    line = f"sh -c 'until test -e {flag}; do sleep 0.1; done; cat {{source}}/{{run}}/*/* > {{output}}/data'"
    return {"raw": {"from": "live", "kind": "command", "command": line}}


def products(site: Site, number: int) -> dict[str, Any]:
    found: dict[str, Any] = site.doc(number).get("straxflow", {}).get("online", {}).get("products", {})
    return found


FIELDS = {
    "raw_status": {"from": "live", "values": {"running": "transferring", "done": "ondeck"}},
    "processed_status": {
        "values": {"submitted": "queueing", "running": "processing", "done": "processed", "failed": "failed"}
    },
}


def test_states_are_seen_while_a_run_is_worked_on(make_site: MakeSite, tmp_path: Path) -> None:
    flag = tmp_path / "go"
    site = make_site(products=waiting(flag), states={"fields": FIELDS})
    site.take(1)
    with site.background() as running:
        seen = running.until(lambda: products(site, 1).get("raw", {}).get("state") == "running" and products(site, 1))
        running.until(lambda: site.status(1) == "running" and site.reason(1) == "process of raw")
        assert seen["raw"]["step"] == "process"
        assert site.state().folder / seen["raw"]["log"]
        running.until(lambda: products(site, 1)["live"]["state"] == "done")
        assert products(site, 1)["live"]["size_mb"] > 0
        document = site.doc(1)
        assert (document["raw_status"], document["processed_status"]) == ("ondeck", "processing")
        with connect(site.config) as db:
            open_ones = [a for a in history_of(db, "online", "000001") if a.ended is None]
        assert [(a.step, a.product) for a in open_ones] == [("process", "raw")]
        flag.touch()
        assert running.wait().code == 0, running.output
    document = site.doc(1)
    assert site.status(1) == "done"
    assert document["processed_status"] == "processed"
    assert {n: (p["state"], p["step"]) for n, p in products(site, 1).items()} == {
        "live": ("done", "register_live"),
        "raw": ("done", "register"),
    }
    part = document["straxflow"]["online"]
    assert part["release"]["state"] == "done"
    assert "claim" not in part
    with connect(site.config) as db:
        history = history_of(db, "online", "000001")
    assert [(a.product, a.step, a.outcome) for a in history] == [
        (a.product, a.step, "ok") for a in site.attempts("000001")
    ]
    assert all(a.ended and a.cpu_seconds and a.owner["host"] for a in history)
