"""Claims, previews and polls with few and with many pending runs, beside a plain query of the same collection."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from pymongo.collection import Collection

from bench.measure import Sample, Series, in_turn, measure, ratio_of
from bench.preview import fill
from bench.result import Result, Table, judge
from bench.site import Lab, Site, make_site
from straxflow.lab.wire import Wire, counted
from straxflow.owner import Owner
from straxflow.rundb.claims import Claimer
from straxflow.rundb.client import RunDb
from straxflow.rundb.gate import look
from straxflow.rundb.pending import candidates
from straxflow.watch.due import look_for_work

DOCUMENTS, QUICK_DOCUMENTS = 10_000, 2_000
PENDING, QUICK_PENDING = (200, 1_000, 10_000), (200, 2_000)
CLAIMED = 200
REPETITIONS, QUICK_REPETITIONS = 5, 2
CLAIM, PREVIEW, POLL, NEWER = f"claim of {CLAIMED}", "query of the preview", "poll", "poll for newer runs"
QUERY, UPDATES = "plain query", f"plain query, {CLAIMED} plain updates"
BASELINE = {CLAIM: UPDATES, PREVIEW: QUERY, POLL: QUERY, NEWER: QUERY}
Runs = Collection[dict[str, Any]]
Found = dict[int, dict[str, Series]]
Wires = dict[int, dict[str, Wire]]
"""By the number of pending runs, and by case."""


def bench(lab: Lab, quick: bool) -> Result:
    """All documents stay; more and more of them are pending."""
    count, steps = (QUICK_DOCUMENTS, QUICK_PENDING) if quick else (DOCUMENTS, PENDING)
    site = make_site(lab, "pending", lab.folder / "daq", {"claim": {"max_runs": CLAIMED}, "rundb": {"timeout_s": 60}})
    runs = lab.runs(site.name)
    fill(runs, count, 0)
    cases: dict[str, Callable[[RunDb], object]] = {
        CLAIM: lambda db: _claim(db, site),
        PREVIEW: lambda db: _preview(db, site),
        POLL: lambda db: look_for_work(db, site.config, "online"),
        # others are at work: a new run alone would be a reason for one more invocation
        NEWER: lambda db: look_for_work(db, site.config, "online", newer_than=count),
        QUERY: _query,
        UPDATES: _updates,
    }
    found: Found = {}
    wires: Wires = {}
    for pending in steps:
        runs.update_many({"number": {"$gt": count - pending}}, {"$unset": {"processing_status": ""}})
        wires[pending] = {}
        timed = {name: _timed(site, runs, case, wires[pending], name) for name, case in cases.items()}
        found[pending] = in_turn(timed, QUICK_REPETITIONS if quick else REPETITIONS)
    few, many = steps[0], steps[-1]
    return Result(
        "pending",
        f"{count:,} run documents of 4 to 20 data entries, more and more of them pending; the plain query asks for the "
        f"{CLAIMED} newest pending ones by their state alone and reads their numbers. The database is the stand-in, "
        "which has no indexes: it looks at all documents for each query, and sorts all that it finds",
        [
            judge(f"{name}: commands and documents read, {many:,} pending by {few}", _grown(wires, name), 1, "")
            for name in BASELINE
        ],
        [_counts(wires), _clock(found)],
        [
            "What a claim asks for and reads is counted on the wire. How long that takes here follows the stand-in's "
            "own scans and sorts, as the plain query's time does."
        ],
    )


def _grown(wires: Wires, name: str) -> float:
    few, many = (wires[pending][name] for pending in (min(wires), max(wires)))
    return max(len(many.commands) / len(few.commands), many.documents / max(few.documents, 1))


def _counts(wires: Wires) -> Table:
    rows = [
        [f"{name}, {pending:,} pending", str(len(one.commands)), str(one.documents), f"{one.bytes / 1e3:.1f}"]
        for name in BASELINE
        for pending, cases in wires.items()
        for one in [cases[name]]
    ]
    return Table("On the wire", ["what", "commands", "documents read", "kB read"], rows)


def _clock(found: Found) -> Table:
    rows = []
    for name in [*BASELINE, QUERY, UPDATES]:
        for pending, cases in found.items():
            ratio = f"{ratio_of(cases[name], cases[BASELINE[name]]):.1f} ({BASELINE[name]})" if name in BASELINE else ""
            rows.append([f"{name}, {pending:,} pending", cases[name].show(), ratio])
    return Table("Wall clock", ["what", "s: median (range)", "by its baseline"], rows)


def _timed(
    site: Site, runs: Runs, case: Callable[[RunDb], object], wires: dict[str, Wire], name: str
) -> Callable[[int], Sample]:
    def once(_: int) -> Sample:
        with counted(site.config) as (db, wire):
            sample = measure(lambda: case(db))
        wires[name] = wire
        mine = {"straxflow.online.claim.batch": "bench"}
        runs.update_many(mine, {"$unset": {"straxflow": "", "processing_status": ""}})
        return sample

    return once


def _claim(db: RunDb, site: Site) -> None:
    claimer = Claimer(db, site.config, "online", "bench", Owner.current())
    gate = look(db, site.config, "online")
    assert len(claimer.claim_pending(lambda _: True, print, gate)) == CLAIMED


def _preview(db: RunDb, site: Site) -> None:
    gate = look(db, site.config, "online")
    found = candidates(db, site.config, "online", gate=gate, wanted=CLAIMED)
    assert len(list(islice(found, CLAIMED))) == CLAIMED, gate.held()


def _query(db: RunDb) -> list[object]:
    found = db.runs.find({"processing_status": None}, {"number": 1}).sort("number", -1).limit(CLAIMED)
    ids = [document["_id"] for document in found]
    assert len(ids) == CLAIMED
    return ids


def _updates(db: RunDb) -> None:
    for id_ in _query(db):
        db.runs.find_one_and_update({"_id": id_}, {"$set": {"straxflow.online.claim.batch": "bench"}}, {"_id": 1})
