"""The preview of many pending runs in a large run database, and whether its queries use the indexes."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from pymongo.collection import Collection

from bench.measure import Sample, Series, in_turn, measure
from bench.result import Result, Table, judge, times
from bench.site import Lab, Site, make_site
from straxflow.cli import indexes
from straxflow.lab.daq import RunPlan
from straxflow.lab.daq.daq import run_document
from straxflow.owner import Owner
from straxflow.rundb.claims import Claimer
from straxflow.rundb.client import connect
from straxflow.rundb.pending import INDEXES, campaign_indexes, candidates

GOAL_S = 5.0
CLAIMED = 200
REPETITIONS, QUICK_REPETITIONS = 3, 2
HOSTS = ("demo-daq", "site", "tape", "analysis")
TYPES = ("live", "raw_records", "records", "peaks", "events")


def bench(lab: Lab, quick: bool) -> Result:
    """Preview as a user does, then the queries alone: with and without indexes, small and large."""
    large, small, pending = (2_000, 200, 100) if quick else (20_000, 2_000, 500)
    changes = {"claim": {"max_runs": pending}, "rundb": {"timeout_s": 60}}
    repetitions = QUICK_REPETITIONS if quick else REPETITIONS
    queries: list[Series] = []
    for count in (small, large):
        site = make_site(lab, f"preview{count}", lab.folder / "daq", changes)
        runs = lab.runs(site.name)
        fill(runs, count, min(pending, small // 2))
        for with_indexes in (False, True):
            if with_indexes:
                _make_indexes(site)
            _pending(site, pending)
            what = f"{count} documents, {'with' if with_indexes else 'without'} indexes"
            found = in_turn(
                {
                    f"pending runs of {what}": lambda _: _pending(site, pending),  # noqa: B023  (called at once)
                    f"claim of {CLAIMED}, {what}": lambda _: _claim(site, runs),  # noqa: B023
                },
                repetitions,
            )
            queries += found.values()
    whole = in_turn({"preview": lambda _: site.snakemake("-n")}, repetitions)["preview"]
    low, high = whole.spread()
    named = [" + ".join(name for name, _ in keys) for keys in (*INDEXES, *campaign_indexes("online"))]
    return Result(
        "preview",
        f"`snakemake --profile local -n` with {pending} pending runs among {large:,} run documents of 20 data entries, "
        "one product (six jobs and more a run); then the queries alone, in this process. The database is the stand-in",
        [judge(f"preview, {pending} of {large:,}", whole.median(), GOAL_S, " s", f"{low:.2f} to {high:.2f}")],
        [
            times("Preview", [whole]),
            times("Queries", queries),
            Table("Indexes (`straxflow check` says which are missing)", ["fields"], [[name] for name in named]),
        ],
        [
            "The stand-in has no explain(), so whether a MongoDB's planner takes the indexes is not shown here; with "
            "and without them are not measured in turn, but one after the other, each after one call that does not "
            "count. The queries are few: one for the pending, one for abandoned claims, one for every 500 candidates.",
            "The rest of the preview is Snakemake's own work, on some eight jobs a run.",
        ],
    )


def _pending(site: Site, count: int) -> Sample:
    def work() -> None:
        with connect(site.config) as db:
            assert list(islice(candidates(db, site.config, "online"), count))

    return measure(work)


def _claim(site: Site, runs: Collection[dict[str, Any]]) -> Sample:
    claim = site.config.claim.model_copy(update={"max_runs": CLAIMED})
    config = site.config.model_copy(update={"claim": claim})

    def work() -> None:
        with connect(config) as db:
            Claimer(db, config, "online", "bench", Owner.current()).claim_pending(lambda _: True, print)

    sample = measure(work)
    mine = {"straxflow.online.claim.batch": "bench"}
    runs.update_many(mine, {"$unset": {"straxflow": "", "processing_status": ""}})
    return sample


def _make_indexes(site: Site) -> None:
    with connect(site.config) as db:
        for keys in indexes.missing(db, "online"):
            indexes.create(db, keys)


def fill(runs: Collection[dict[str, Any]], count: int, pending: int) -> None:
    """Insert run documents, the newest of them pending."""
    documents = _documents(count, pending)
    while batch := list(islice(documents, 1000)):
        runs.insert_many(batch)


def _documents(count: int, pending: int) -> Iterator[dict[str, Any]]:
    """Run documents as years of data taking leave them: the newest are pending, some older ones failed."""
    dice = random.Random(1)
    start = datetime.now(UTC) - timedelta(minutes=20 * count + 60)
    for number in range(1, count + 1):
        plan = RunPlan(number, dice.choice(("background", "calibration", "led")), duration_s=1000)
        began = start + timedelta(minutes=20 * number)
        document = run_document(plan, Path("/daq"), HOSTS[0], "demo", began)
        document |= {"end": began + timedelta(seconds=1000), "rate": {"demo": {"avg": 1.3, "max": 1.5}}}
        if number <= count - pending:
            document["data"] += [_entry(number, host, kind, i) for i in range(4) for host, kind in _places(i)]
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
