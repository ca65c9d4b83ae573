"""Which runs are claimed, in which order, and what stops all of them, against the real database server."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from straxflow.owner import Owner
from straxflow.rundb.claims import Claimer
from straxflow.rundb.client import connect
from straxflow.rundb.pending import Due, anything_due
from straxflow.rundb.switch import read_switch, set_switch
from tests.site import Site


@pytest.fixture
def site(tmp_path: Path, rundb_server: RunDbServer, sshd: Sshd) -> Iterator[Site]:
    made = Site(tmp_path, rundb_server, sshd)
    yield made
    made.close()


def due(site: Site, *alive: str) -> Due:
    with connect(site.config) as db:
        return anything_due(db, site.config, "online", alive)


def test_a_poll_tells_whether_a_claim_would_find_a_run(site: Site) -> None:
    assert due(site) == Due(None)
    site.document(1, processing_status={"status": "done"})
    site.document(2, tags=[{"name": "abandon"}])
    site.document(3, end=None)
    site.document(4, start="yesterday")
    site.document(5)
    site.document(5)
    assert due(site) == Due(None)
    site.document(6)
    assert due(site) == Due("000006")
    assert due(site).start


def test_a_poll_sees_what_dead_invocations_held(site: Site) -> None:
    site.document(1)
    here = Owner.current()
    config = site.config
    with connect(config) as db:
        Claimer(db, config, "online", "mine", here).claim_pending(lambda _: True, print)
        assert due(site) == due(site, "mine") == Due(None)
        long_ago = db.now() - timedelta(seconds=config.claim.lease_s + 1)
        site.runs.update_one({"number": 1}, {"$set": {"straxflow.online.claim.renewed": long_ago}})
        # the caller knows better
        assert (due(site), due(site, "mine")) == (Due("000001"), Due(None))
        dead = Owner(here.host, here.boot, here.pid, here.start - 1).as_dict()
        changes = {"straxflow.online.claim.owner": dead, "straxflow.online.claim.renewed": db.now()}
        site.runs.update_one({"number": 1}, {"$set": changes})
        assert due(site) == Due("000001")


def test_the_switch_holds_what_is_due(site: Site) -> None:
    site.document(1)
    config = site.config
    with connect(config) as db:
        assert read_switch(db, config).on
        off = set_switch(db, config, "off", "the disk is changed")
        assert not off.on
        assert off.reason == "the disk is changed"
        assert "auto_processing is off (turned by " in off.text
        assert off.time is not None
        assert abs(off.time - datetime.now(UTC)) < timedelta(minutes=1)
        held = due(site)
        assert (held.run, held.held, held.start) == ("000001", off.text, False)
        assert set_switch(db, config, "on").on
        assert due(site).start


@pytest.mark.parametrize(
    ("status", "on"), [("on", True), ("ON ", True), (True, True), ("off", False), (False, False), ("pause", False)]
)
def test_a_switch_that_others_turned(site: Site, status: object, on: bool) -> None:
    site.configure(rundb={"switch": {"database": site.database, "collection": "control", "name": "all"}})
    site.client[site.database]["control"].insert_many([{"name": "auto_processing"}, {"name": "all", "status": status}])
    with connect(site.config) as db:
        found = read_switch(db, site.config)
    assert found.on is on
    assert ("expected on or off" in found.text) is (status == "pause")
