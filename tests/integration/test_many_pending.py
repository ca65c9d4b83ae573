"""What a claim and an idle poll ask of the run database, counted on the wire: it does not grow with what is pending."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from straxflow.lab.wire import Wire, counted
from straxflow.owner import Owner
from straxflow.rundb.claims import Claimer
from straxflow.rundb.gate import look
from straxflow.rundb.pending import candidates
from straxflow.watch.due import look_for_work
from tests.site import Site

MAX_RUNS = 20


@pytest.fixture
def site(tmp_path: Path, rundb_server: RunDbServer, sshd: Sshd) -> Iterator[Site]:
    made = Site(tmp_path, rundb_server, sshd)
    made.configure(claim={"max_runs": MAX_RUNS})
    yield made
    made.close()


def take_until(site: Site, last: int) -> None:
    """Documents of finished runs, up to this number."""
    first = site.runs.count_documents({}) + 1
    site.document(first)
    one = site.doc(first)
    del one["_id"]
    site.runs.insert_many([{**one, "number": number} for number in range(first + 1, last + 1)])


def claim(site: Site) -> Wire:
    config = site.config
    with counted(site.config) as (db, wire):
        claimer = Claimer(db, config, "online", "b", Owner.current())
        assert len(claimer.claim_pending(lambda _: True, print, look(db, config, "online"))) == MAX_RUNS
        assert wire.commands.count("update") == 1
        site.runs.update_many({}, {"$unset": {"straxflow": "", "processing_status": ""}})
        return wire


def preview(site: Site) -> Wire:
    config = site.config
    with counted(site.config) as (db, wire):
        found = candidates(db, config, "online", print, look(db, config, "online"), MAX_RUNS)
        assert len(list(islice(found, MAX_RUNS))) == MAX_RUNS
        return wire


def poll(site: Site, newer_than: int | None = None) -> Wire:
    with counted(site.config) as (db, wire):
        assert (look_for_work(db, site.config, "online", ["b"], newer_than).run is None) == (newer_than is not None)
        return wire


@pytest.mark.slow
def test_what_is_read_does_not_grow_with_the_number_of_pending_runs(site: Site) -> None:
    seen: dict[str, list[tuple[int, int, int]]] = {}
    for pending in (100, 1000, 3000):
        take_until(site, pending)
        wires = {
            "claim": claim(site),
            "preview": preview(site),
            "poll": poll(site),
            # others are at work: only a new run would be a reason to start one more invocation
            "poll for newer ones": poll(site, newer_than=pending),
        }
        for what, wire in wires.items():
            seen.setdefault(what, []).append((len(wire.commands), wire.documents, wire.bytes))
    for what, rows in seen.items():
        commands, documents, size = zip(*rows, strict=True)
        assert len(set(commands)) == len(set(documents)) == 1, (what, rows)
        # numbers and the server's own counters take a few bytes more or less
        assert max(size) < 1.01 * min(size), (what, rows)
    # one command for each run that is taken, and some more for all of them together
    assert seen["claim"][0][0] <= MAX_RUNS + 10
    assert seen["claim"][0][1] <= 5 * MAX_RUNS
    assert seen["poll"][0][0] <= 5


@pytest.mark.slow
def test_an_idle_poll_reads_no_document_of_what_is_done(site: Site) -> None:
    take_until(site, 1000)
    site.runs.update_many({}, {"$set": {"processing_status": {"status": "done"}}})
    with counted(site.config) as (db, wire):
        assert look_for_work(db, site.config, "online").run is None
    assert (sorted(wire.commands), wire.documents) == (["find"], 0)
