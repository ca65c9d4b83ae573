"""Figures over many runs: volumes and rates by day, mode or state; latency; failures. Added up by the server."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import exp
from typing import Any, Literal

from straxflow.config import LIVE, Config
from straxflow.reports.documents import RunRow, in_scope, text
from straxflow.rundb.client import Document, RunDb
from straxflow.rundb.rundoc import ONLINE, data_field, status_field

By = Literal["day", "mode", "state"]
KINDS = 100
"""Different reasons that are told apart."""
_FIRST, _LAST = (datetime(year, 1, 1, tzinfo=UTC) for year in (1970, 9000))
BINS = 40
"""Of latencies, in a factor of e: they are told to 1.25 %."""


@dataclass
class Bin:
    """The runs of a day, a mode or a state."""

    key: str
    runs: int = 0
    seconds: float = 0
    """Length of all runs together."""
    sized: int = 0
    """Runs whose live data somebody has measured."""
    live_bytes: float = 0
    stored_bytes: float = 0
    """What this site registered as stored."""

    @property
    def rate_mb_s(self) -> float | None:
        """Of the live data while runs were taken, if all of them were measured."""
        return self.live_bytes / 1e6 / self.seconds if self.seconds and self.sized >= self.runs else None


@dataclass(frozen=True)
class Latency:
    """From the end of a run to its last registered product, s."""

    runs: int
    median_s: float
    most_s: float
    """90 % of the runs took no longer."""


@dataclass(frozen=True)
class Stats:
    """What the run documents come to."""

    bins: Sequence[Bin]
    undated: int = 0
    """Documents without a usable start or end; they are in no bin by day."""
    latency: Latency | None = None
    failures: Mapping[str, int] = field(default_factory=dict)
    attempts: Sequence[Mapping[str, Any]] = ()


def from_database(
    db: RunDb, config: Config, campaign: str, by: By, since: datetime | None = None, until: datetime | None = None
) -> Stats:
    """The figures of all runs in scope; a few queries, whose answers do not grow with the number of runs."""
    within: list[Document] = [in_scope(config)]
    times = {"$gte": since, "$lt": until}
    if given := {key: value for key, value in times.items() if value}:
        within.append({"start": given})
    ended: Document = {"$and": [*within, _date("start"), _date("end")]}
    everything: Document = {"$and": within}
    matched = ended if by == "day" else everything
    key = _key(by, status_field(campaign, config))
    bins: dict[str, Bin] = {}
    for row in _run(db, [{"$match": matched}, {"$group": {"_id": key, "runs": {"$sum": 1}}}]):
        _bin(bins, row["_id"]).runs += row["runs"]
    length = {"$subtract": ["$end", "$start"]}
    for row in _run(db, [{"$match": ended}, {"$group": {"_id": key, "ms": {"$sum": length}}}]):
        _bin(bins, row["_id"]).seconds += float(row["ms"]) / 1000
    entry = data_field(campaign, config)
    for live in (True, False):
        for row in _run(db, _volumes(matched, key, entry, _of_live() if live else _of_site(config, campaign), live)):
            one = _bin(bins, row["_id"])
            if live:
                one.live_bytes += row["mb"] * 1e6
                one.sized += row["runs"]
            else:
                one.stored_bytes += row["mb"] * 1e6
    return Stats(
        bins=sorted(bins.values(), key=lambda one: one.key),
        undated=db.runs.count_documents(everything) - db.runs.count_documents(ended),
        latency=_latency(db, ended, entry, _of_site(config, campaign)),
        failures=_failures(db, config, campaign, everything),
        attempts=_attempts(db, config, campaign, since, until),
    )


def from_rows(rows: Iterable[RunRow], by: By) -> Stats:
    """The same of rows that were read elsewhere, as far as they tell."""
    bins: dict[str, Bin] = {}
    failures: Counter[str] = Counter()
    for row in rows:
        key = row.mode if by == "mode" else row.state if by == "state" else f"{row.start:%F}" if row.start else "?"
        one = _bin(bins, key)
        one.runs += 1
        one.seconds += row.seconds or 0
        if row.bytes is not None:
            one.sized += 1
            one.live_bytes += row.bytes
        if row.state in ("failed", "damaged", "misconfigured", "incomplete"):
            _count(failures, row.reason)
    return Stats(sorted(bins.values(), key=lambda one: one.key), failures=dict(failures.most_common()))


def _key(by: By, status: str) -> Any:
    if by == "mode":
        return "$mode"
    if by == "state":
        return {"$ifNull": [f"${status}.status", f"${status}"]}
    return {"$dateToString": {"format": "%Y-%m-%d", "date": "$start"}}


def _bin(bins: dict[str, Bin], key: object) -> Bin:
    word = text(key) or ("none" if key is None else "?")
    return bins.setdefault(word, Bin(word))


def _date(name: str) -> Document:
    # one array of dates, or one date of the year 33658, among a million documents would end the whole aggregation
    return {name: {"$type": "date", "$gte": _FIRST, "$lt": _LAST}, f"{name}.0": {"$exists": False}}


def _number(name: str) -> Document:
    # neither text nor NaN nor infinity, which would spoil the sum
    return {name: {"$gte": 0, "$lt": 1e15}, f"{name}.0": {"$exists": False}}


def _of_live() -> Document:
    return {"type": LIVE}


def _of_site(config: Config, campaign: str) -> Document:
    # a site with several host names has an entry under each
    mine: Document = {"host": config.store_hosts[0], "type": {"$ne": LIVE}}
    mine["campaign"] = {"$in": [None, ONLINE]} if campaign == ONLINE else campaign
    return mine


def _volumes(matched: Document, key: Any, entry: str, which: Document, largest: bool) -> list[Document]:
    """MB and runs by key: of each run the largest of these entries, or their sum."""
    return [
        *_entries(matched, entry, which, {"key": key}),
        {"$match": _number("entry.size_mb")},
        {"$group": {"_id": {"run": "$_id", "key": "$key"}, "mb": {"$max" if largest else "$sum": "$entry.size_mb"}}},
        {"$group": {"_id": "$_id.key", "mb": {"$sum": "$mb"}, "runs": {"$sum": 1}}},
    ]


def _entries(matched: Document, entry: str, which: Document, more: Document) -> list[Document]:
    """These data entries, one by one as `entry`, with more of their documents."""
    return [
        {"$match": {"$and": [matched, {entry: {"$elemMatch": which}}]}},
        # a run has dozens of entries: all else that its document holds would be copied for each of them
        {"$project": {"entry": f"${entry}", **more}},
        {"$unwind": "$entry"},
        {"$match": {f"entry.{name}": value for name, value in which.items()}},
    ]


def _latency(db: RunDb, ended: Document, entry: str, which: Document) -> Latency | None:
    """Added up in bins by the logarithm, so that no list of runs is needed for a median."""
    rows = _run(
        db,
        [
            *_entries(ended, entry, which, {"end": 1}),
            {"$match": _date("entry.time")},
            {"$group": {"_id": "$_id", "last": {"$max": "$entry.time"}, "end": {"$max": "$end"}}},
            {"$project": {"ms": {"$subtract": ["$last", "$end"]}}},
            {"$match": {"ms": {"$gte": 1}}},
            {"$group": {"_id": {"$floor": {"$multiply": [{"$ln": "$ms"}, BINS]}}, "runs": {"$sum": 1}}},
        ],
    )
    counts = sorted((int(row["_id"]), int(row["runs"])) for row in rows)
    total = sum(runs for _, runs in counts)
    if not total:
        return None
    return Latency(total, _quantile(counts, total, 0.5), _quantile(counts, total, 0.9))


def _quantile(counts: Sequence[tuple[int, int]], total: int, share: float) -> float:
    seen = 0
    for place, runs in counts:
        seen += runs
        if seen >= share * total:
            return exp((place + 0.5) / BINS) / 1000
    raise AssertionError("not reached")


def _failures(db: RunDb, config: Config, campaign: str, everything: Document) -> dict[str, int]:
    field_ = status_field(campaign, config)
    failed: Document = {"$or": [{field_: "failed"}, {f"{field_}.status": "failed"}]}
    counts: Counter[str] = Counter()
    for document in db.runs.find({"$and": [everything, failed]}, {f"{field_}.reason": 1}):
        value: Any = document
        for key in (*field_.split("."), "reason"):
            value = value.get(key) if isinstance(value, Mapping) else None
        _count(counts, text(value))
    return dict(counts.most_common())


def _count(counts: Counter[str], reason: str | None) -> None:
    kind = kind_of(reason)
    counts[kind if kind in counts or len(counts) < KINDS else "other reasons"] += 1


def kind_of(reason: str | None) -> str:
    """A reason without what differs from run to run: log, paths, numbers."""
    words = " ".join((reason or "no reason was given").split())
    words = re.sub(r"\(log: [^)]*\)", "", words)
    words = re.sub(r"(?<![\w.])/[\w./~+@-]+", "...", words)
    words = re.sub(r"\b0x[0-9a-f]+\b|\b[0-9a-f]{8,}\b|\d+(\.\d+)?", "#", words)
    return words.strip()[:160]


def _attempts(
    db: RunDb, config: Config, campaign: str, since: datetime | None, until: datetime | None
) -> list[dict[str, Any]]:
    times = {key: value for key, value in {"$gte": since, "$lt": until}.items() if value}
    mine: Document = {"campaign": campaign, "site": config.site, **({"started": times} if times else {})}
    rows = db.ours("attempts").aggregate(
        [
            {"$match": mine},
            {
                "$group": {
                    "_id": {"product": "$product", "step": "$step", "outcome": "$outcome"},
                    "jobs": {"$sum": 1},
                    "seconds": {"$sum": "$seconds"},
                    "cpu_seconds": {"$sum": "$cpu_seconds"},
                    "peak_rss_mb": {"$max": "$peak_rss_mb"},
                }
            },
        ]
    )
    found = [{**row["_id"], **{k: v for k, v in row.items() if k != "_id"}} for row in rows]
    return sorted(found, key=lambda row: (str(row.get("product")), str(row.get("step")), str(row.get("outcome"))))


def _run(db: RunDb, pipeline: list[Document]) -> Iterable[Document]:
    return db.runs.aggregate(pipeline, allowDiskUse=True)
