"""The preview and the claim of many pending runs in run databases of several sizes, and what they ask of the server."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from pymongo.collection import Collection

from bench.measure import Sample, Series, in_turn, measure, run
from bench.result import Judged, Result, Table, compare, judge, times
from bench.site import Lab, Site, make_site
from straxflow.cli import indexes
from straxflow.lab.daq import RunPlan
from straxflow.lab.daq.daq import run_document
from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.wire import Wire, counted
from straxflow.owner import Owner
from straxflow.rundb.claims import Claimer
from straxflow.rundb.client import RunDb, connect
from straxflow.rundb.gate import look
from straxflow.rundb.pending import INDEXES, campaign_indexes, candidates
from straxflow.watch.due import look_for_work

GOAL_S, GROWTH_GOAL = 3.0, 1.05
SIZES, QUICK_SIZES = (1_000, 10_000, 20_000, 100_000, 300_000), (500, 2_000)
NEWEST = {"number": {"$gt": max(SIZES)}}
PREVIEWED, QUICK_PREVIEWED = 20_000, 2_000
PENDING, QUICK_PENDING = 500, 100
ENTRIES, FEW_ENTRIES = 20, 2
FEW = 20
"""Runs that are claimed, beside as many as are pending."""
MEMORY_MB = 8_000
"""Of a stand-in of this bench's own: one that does not hold all documents collects garbage for minutes."""
FILL_S = 150.0
"""A size that would take longer to fill is left out."""
REPETITIONS, QUICK_REPETITIONS = 3, 2
HOSTS = ("demo-daq", "site", "tape", "analysis")
TYPES = ("live", "raw_records", "records", "peaks", "events")
QUERY, POLL, IDLE, SCAN = "query of the preview", "poll", "poll, nothing pending", "one pass: no such run"
WHOLE, BARE = "preview", "dry run of a Snakefile with as many jobs, and nothing else"
BARE_FILE = Path(__file__).with_name("bare_jobs.smk")
BARE_GOAL = 1.1
Runs = Collection[dict[str, Any]]


@dataclass
class Step:
    """What was found among so many documents."""

    size: int
    entries: int
    filled: int
    fill_s: float
    series: dict[str, Series] = field(default_factory=dict)
    wires: dict[str, Wire] = field(default_factory=dict)


def bench(lab: Lab, quick: bool) -> Result:
    """Measure on a stand-in of its own, which is removed at the end."""
    folder = lab.folder / "rundb_preview"
    try:
        with RunDbServer(folder, memory_mb=MEMORY_MB) as rundb:
            return _bench(replace(lab, rundb=rundb), quick)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _bench(lab: Lab, quick: bool) -> Result:
    """A collection grows, its pending runs stay the same; at one size the preview is called as a user does."""
    pending, previewed = (QUICK_PENDING, QUICK_PREVIEWED) if quick else (PENDING, PREVIEWED)
    repetitions = QUICK_REPETITIONS if quick else REPETITIONS
    site = make_site(lab, "preview", lab.folder / "daq", {"claim": {"max_runs": pending}, "rundb": {"timeout_s": 60}})
    runs = lab.runs(site.name)
    with connect(site.config) as db:
        for keys in indexes.missing(db, "online"):
            indexes.create(db, keys)
    whole, bare = Series(WHOLE), Series(BARE)
    steps: list[Step] = []
    left_out: list[str] = []
    done = 0
    for size in QUICK_SIZES if quick else SIZES:
        entries = ENTRIES if size <= previewed else FEW_ENTRIES
        if steps and steps[-1].entries != entries:
            runs.drop()
            done = 0
        expected = expected_fill(steps, size - done, entries)
        if expected > FILL_S:
            left_out.append(f"{size:,} documents are left out: to fill them in would take {expected:.0f} s here.")
            continue
        began = time.monotonic()
        # what is newest stands last, where a pass of the stand-in comes to it last
        runs.delete_many(NEWEST)
        fill(runs, size - pending, 0, first=done + 1, entries=entries)
        fill(runs, max(SIZES) + pending, pending, first=max(SIZES) + 1)
        steps.append(Step(size, entries, size - pending - done, time.monotonic() - began))
        done = size - pending
        _measure(steps[-1], site, runs, pending, repetitions)
        if size == previewed:
            cases = {WHOLE: lambda _: site.snakemake("-n"), BARE: lambda _: _bare(site, pending)}
            whole, bare = in_turn(cases, repetitions).values()
    low, high = whole.spread()
    named = [" + ".join(name for name, _ in keys) for keys in (*INDEXES, *campaign_indexes("online"))]
    return Result(
        "preview",
        f"`snakemake --profile local -n` with {pending} pending runs among {previewed:,} run documents of {ENTRIES} "
        "data entries, one product (seven jobs a run); then the queries alone, in this process, among few and "
        f"many documents, those beyond {previewed:,} of {FEW_ENTRIES} data entries. The database is the stand-in, "
        "which has no indexes",
        [
            judge(f"preview, {pending} of {previewed:,}", whole.median(), GOAL_S, " s", f"{low:.2f} to {high:.2f}"),
            compare(f"preview, {pending} of {previewed:,}, by a {BARE}", whole, bare, BARE_GOAL),
            *_judged(steps, pending),
        ],
        [
            times("Preview", [whole, bare]),
            _queries(steps),
            Table("Indexes (`straxflow check` says which are missing)", ["fields"], [[name] for name in named]),
        ],
        [
            "The stand-in goes through all documents once for each query, and for each update that asks for more than "
            "an _id, as that of a claim does: the search for a run that is not there is one pass, and was made once "
            "before, for a server reads what it was just filled with slower the first time. With the indexes a "
            "MongoDB looks only at what it gives; that its planner takes them is not shown here, for the stand-in has "
            "no explain(). What is asked and answered was counted on the wire, and depends on no server.",
            "The rest of the preview is Snakemake's own work, on seven jobs a run: the Snakefile beside it "
            f"(bench/{BARE_FILE.name}) has rules with an output, an input and a command, asks no database and reads no "
            "configuration.",
            *left_out,
        ],
    )


def _bare(site: Site, runs: int) -> Sample:
    argv = ["snakemake", "-n", "--cores", "2", "--scheduler", "greedy", "--snakefile", str(BARE_FILE)]
    return run([*argv, "--config", f"runs={runs}"], cwd=site.folder, log=site.folder / "bare.log")


def expected_fill(steps: Sequence[Step], more: int, entries: int) -> float:
    """Seconds to fill in so many more documents, as fast as the last ones of that kind were; 0 if there were none."""
    alike = [step for step in steps if step.entries == entries]
    return alike[-1].fill_s * more / alike[-1].filled if alike else 0.0


def _measure(step: Step, site: Site, runs: Runs, pending: int, repetitions: int) -> None:
    cases: dict[str, Callable[[RunDb], object]] = {
        QUERY: lambda db: _preview(db, site, pending),
        f"claim of {FEW}": lambda db: _claim(db, site, FEW),
        POLL: lambda db: look_for_work(db, site.config, "online"),
        SCAN: lambda db: db.runs.find_one({"number": -1}, {"_id": 1}),
        f"claim of {pending}": lambda db: _claim(db, site, pending),
    }
    runs.find_one({"number": -1})
    step.series |= in_turn({name: _timed(site, runs, case, step, name) for name, case in cases.items()}, repetitions)
    runs.update_many(NEWEST, {"$set": {"processing_status": {"status": "done"}}})
    step.series |= in_turn({IDLE: _timed(site, runs, cases[POLL], step, IDLE)}, repetitions)
    runs.update_many(NEWEST, {"$unset": {"processing_status": ""}})


def _timed(site: Site, runs: Runs, case: Callable[[RunDb], object], step: Step, name: str) -> Callable[[int], Sample]:
    def once(_: int) -> Sample:
        with counted(site.config) as (db, wire):
            sample = measure(lambda: case(db))
        step.wires[name] = wire
        if name.startswith("claim"):
            mine = {"straxflow.online.claim.batch": "bench"}
            runs.update_many(mine, {"$unset": {"straxflow": "", "processing_status": ""}})
        return sample

    return once


def _preview(db: RunDb, site: Site, count: int) -> None:
    found = candidates(db, site.config, "online", gate=look(db, site.config, "online"), wanted=count)
    assert len(list(islice(found, count))) == count


def _claim(db: RunDb, site: Site, count: int) -> None:
    claim = site.config.claim.model_copy(update={"max_runs": count})
    config = site.config.model_copy(update={"claim": claim})
    claimer = Claimer(db, config, "online", "bench", Owner.current())
    assert len(claimer.claim_pending(lambda _: True, print, look(db, config, "online"))) == count


def _judged(steps: Sequence[Step], pending: int) -> list[Judged]:
    """Seconds among many documents, and how what is read grows from the fewest to the most."""
    timed, grown = [], []
    for name in (QUERY, f"claim of {pending}", POLL):
        alike = {step.entries: step for step in steps if name in step.series}
        # the largest of each kind of document
        for step in alike.values():
            what = f"{name}, {pending} pending of {step.size:,}"
            timed.append(judge(what, step.series[name].median(), GOAL_S, " s"))
    few, many = steps[0], steps[-1]
    for name in (QUERY, f"claim of {FEW}", f"claim of {pending}", POLL):
        growth = many.wires[name].bytes / few.wires[name].bytes
        grown.append(judge(f"{name}: bytes read, of {many.size:,} by {few.size:,}", growth, GROWTH_GOAL, ""))
    return timed + grown


def _queries(steps: Sequence[Step]) -> Table:
    columns = ["what", "among", "s: median (range)", "CPU here, s", "commands", "documents read", "kB read"]
    names = dict.fromkeys(name for step in steps for name in step.series)
    rows = []
    for name in names:
        for step in (one for one in steps if name in one.series):
            found, wire = step.series[name], step.wires[name]
            counts = [str(len(wire.commands)), str(wire.documents), f"{wire.bytes / 1e3:.1f}"]
            rows.append([name, f"{step.size:,}", found.show(), f"{found.median('cpu'):.2f}", *counts])
    return Table("Queries", columns, rows)


def fill(runs: Runs, count: int, pending: int, first: int = 1, entries: int = ENTRIES) -> None:
    """Insert run documents from `first` to `count`: the newest pending, the others with so many data entries."""
    documents = _documents(first, count, pending, entries)
    while batch := list(islice(documents, 1000)):
        runs.insert_many(batch)


def _documents(first: int, count: int, pending: int, entries: int) -> Iterator[dict[str, Any]]:
    """Run documents as years of data taking leave them: the newest are pending, some older ones failed."""
    dice = random.Random(1)
    start = datetime.now(UTC) - timedelta(minutes=20 * count + 60)
    for number in range(first, count + 1):
        plan = RunPlan(number, dice.choice(("background", "calibration", "led")), duration_s=1000)
        began = start + timedelta(minutes=20 * number)
        document = run_document(plan, Path("/daq"), HOSTS[0], "demo", began)
        document |= {"end": began + timedelta(seconds=1000), "rate": {"demo": {"avg": 1.3, "max": 1.5}}}
        if number <= count - pending:
            places = ((i, host, kind) for i in range(4) for host, kind in _places(i))
            document["data"] += [_entry(number, host, kind, i) for i, host, kind in islice(places, entries - 1)]
            state = "failed" if dice.random() < 0.01 else "done"
            document["processing_status"] = {"status": state, "time": began, "host": "site", "reason": None}
        yield document


def _places(i: int) -> list[tuple[str, str]]:
    return [(HOSTS[1 + i % 3], kind) for kind in TYPES]


def _entry(number: int, host: str, kind: str, i: int) -> dict[str, Any]:
    lineage = f"{number * 7 + i:010x}"
    return {
        "type": kind, "host": host, "location": f"/data/{host}/{number:06d}-{kind}-{lineage}", "by": "straxflow",
        "user": "straxflow", "time": time.time(), "protocol": "FileSytemBackend", "status": "transferred",
        "lineage_hash": lineage, "n_chunks": 68, "file_count": 69, "size_mb": 1300.0,
        "meta": {"lineage_hash": lineage, "versions": {"strax": "2.2.3", "demo": "0.1"}},
    }  # fmt: skip
