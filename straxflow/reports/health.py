"""Whether all goes well, for a monitor: watcher, database, what waits, disks; each with what was measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial

from pymongo import ASCENDING, DESCENDING

from straxflow.config import Config
from straxflow.receipts import State
from straxflow.reports.disks import Disk, local_looks, remote_looks
from straxflow.reports.documents import RunRow, in_scope, projection, query_of, row_of, time_of
from straxflow.reports.left import left_to_a_person
from straxflow.reports.verdict import Check, Level, Measure, Verdict, failed, reach, warning
from straxflow.rundb.client import RunDb, connect
from straxflow.rundb.pending import scope
from straxflow.rundb.switch import read_switch
from straxflow.watch.lease import holder_of, in_words

MOST_PENDING = 1000
PATIENCE_S = 25.0
"""A disk that has not answered by then hangs."""


def examine(config: Config, state: State, campaign: str, patience_s: float = PATIENCE_S) -> list[Verdict]:
    """Look at everything, all parts at once: one that hangs is told of after `patience_s`, and holds up no other."""
    looks = [*local_looks(config, state), *remote_looks(config)]
    checks = [Check(f"{kind} disk", partial(_disk, look, config), patience_s) for kind, look in looks]
    return list(reach([Check("database", partial(_database, config, campaign), patience_s), *checks]))


def _disk(look: Callable[[], Disk], config: Config) -> Iterator[Verdict]:
    disk, limits = look(), config.health
    part = f"{disk.kind} disk"
    if disk.problem or disk.free is None:
        yield failed(part, disk.problem or f"{disk.where}: no answer")
        return
    room, percent = f"{disk.free / 1e9:.0f} GB", disk.free_percent
    if disk.free < disk.least:
        measure = Measure(disk.free, "B", None, disk.least)
        yield Verdict(part, "FAILED", f"{disk.kind} has {room} free, less than store.min_free_gb", measure=measure)
    elif percent is None:
        yield Verdict(part, "ok", f"{disk.kind} {room} free", measure=Measure(disk.free, "B", None, disk.least))
    else:
        warned, least = limits.free_warning_percent, limits.free_critical_percent
        level: Level = "FAILED" if percent < least else "warning" if percent < warned else "ok"
        measure = Measure(round(percent, 1), "%", warned, least)
        yield Verdict(part, level, f"{disk.kind} {percent:.0f} % free ({room})", measure=measure)


def _database(config: Config, campaign: str) -> Iterator[Verdict]:
    began = time.monotonic()
    with connect(config) as db:
        moment = db.now()
        took = time.monotonic() - began
        through = f" through {config.rundb.tunnel.ssh}" if config.rundb.tunnel else ""
        yield Verdict("database", "ok", f"run database{through} answers", measure=Measure(round(took, 3), "s"))
        if config.health.watcher:
            yield _watcher(db, config, campaign, moment)
        switch = read_switch(db, config)
        if not switch.on:
            yield warning("switch", switch.text)
        yield _pending(db, config, campaign, moment)
        yield _left(db, config, campaign)
        if config.health.quiet_warning_h is not None or config.health.quiet_critical_h is not None:
            yield _quiet(db, config, moment)


def _watcher(db: RunDb, config: Config, campaign: str, moment: datetime) -> Verdict:
    limit = config.health.watcher_silent_s
    found, held = holder_of(db, config, campaign)
    lease = found or {}
    renewed, owner = time_of(lease.get("renewed")), lease.get("owner")
    if renewed is None:
        return failed("watcher", "no watcher has ever run here", "start straxflow watch, or set health.watcher: false")
    age = (moment - renewed).total_seconds()
    measure = Measure(round(age), "s", None, limit)
    if not isinstance(owner, dict):
        return failed("watcher", f"no watcher: the last one ended {age / 60:.0f} min ago", "start straxflow watch")
    where = in_words(lease)
    if age > limit:
        return Verdict(
            "watcher", "FAILED", f"the watcher of {where} has been silent for {age / 60:.0f} min", measure=measure
        )
    if not held:
        return Verdict("watcher", "FAILED", f"the watcher of {where} is dead or silent", measure=measure)
    return Verdict("watcher", "ok", f"watcher seen {age:.0f} s ago", measure=measure)


def _pending(db: RunDb, config: Config, campaign: str, moment: datetime) -> Verdict:
    warned, most = config.health.pending_warning_h, config.health.pending_critical_h
    query = {"$and": [scope(config), query_of("pending", config, campaign, moment)]}
    found = db.runs.find(query, projection(campaign, config)).sort("number", ASCENDING).limit(MOST_PENDING)
    rows = [row_of(document, config, campaign, moment) for document in found]
    rows = [row for row in rows if row.state == "pending" and config.selects_mode(row.mode)]
    text = f"{len(rows)}{' or more' if len(rows) >= MOST_PENDING else ''} pending"
    ages = [(moment - since, row.run) for row in rows if (since := _pending_since(row))]
    age, run = max(ages, default=(timedelta(0), ""))
    hours = age / timedelta(hours=1)
    if run:
        text += f", the oldest ({run}) for {hours:.1f} h"
    measure = Measure(round(age.total_seconds()), "s", _seconds(warned), _seconds(most))
    return Verdict("pending", _above(hours, warned, most) if run else "ok", text, measure=measure)


def _pending_since(row: RunRow) -> datetime | None:
    """Since when: its end, or later, when it was set to pending or its claim was last renewed."""
    renewed = row.claimant.renewed if row.claimant else None
    return max((time for time in (row.end, row.since, renewed) if time), default=None)


def _left(db: RunDb, config: Config, campaign: str) -> Verdict:
    count = db.runs.count_documents({"$and": [scope(config), left_to_a_person(config, campaign)]})
    warned, most = config.health.left_warning, config.health.left_critical
    text = f"{count} run{'s' * (count != 1)} left to a person" + (" (straxflow stuck)" if count else "")
    return Verdict("left", _above(count, warned, most), text, measure=Measure(count, "", warned, most))


def _quiet(db: RunDb, config: Config, moment: datetime) -> Verdict:
    warned, most = config.health.quiet_warning_h, config.health.quiet_critical_h
    fields = {"number": 1, "start": 1, "end": 1}
    document = db.runs.find_one(in_scope(config), fields, sort=[("number", DESCENDING)]) or {}
    start, end = time_of(document.get("start")), time_of(document.get("end"))
    last = end or start
    if last is None:
        return warning("quiet", "there is no run yet")
    hours = (moment - last) / timedelta(hours=1)
    text = f"the last run ended {hours:.1f} h ago" if end else f"a run has been taken for {hours:.1f} h"
    measure = Measure(round(hours * 3600), "s", _seconds(warned), _seconds(most))
    return Verdict("quiet", _above(hours, warned, most), text, measure=measure)


def _above(value: float, warned: float | None, most: float | None) -> Level:
    if most is not None and value >= most:
        return "FAILED"
    return "warning" if warned is not None and value >= warned else "ok"


def _seconds(hours: float | None) -> float | None:
    return None if hours is None else hours * 3600
