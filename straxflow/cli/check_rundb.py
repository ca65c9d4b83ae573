"""Checks of the run database: it answers, its clock is ours, its indexes are there, its documents make sense."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice

from straxflow.cli import check_selection, indexes
from straxflow.cli.site import Site
from straxflow.config import Config
from straxflow.reports.verdict import Check, Verdict, failed, ok, warning
from straxflow.rundb.client import RunDb, connect
from straxflow.rundb.pending import candidates, malformed_numbers, scope

MOST = 10_000
NAMED = 5
SKEW_S = 5


def checks(site: Site) -> list[Check]:
    """One check over one connection, with several verdicts."""
    return [Check("run database", lambda: _database(site), timeout_s=60)]


def _database(site: Site) -> Iterator[Verdict]:
    settings = site.config.rundb
    with connect(site.config) as db:
        if db.client is None:
            yield from _folders(db, site)
            return
        skew, latency = _clock(db)
        version = db.client.server_info().get("version", "?")
        through = f" through {settings.tunnel.ssh}" if settings.tunnel else ""
        yield ok(
            "run database",
            f"{settings.uri}{through}: MongoDB {version}, {db.runs.full_name}, answers in {latency * 1e3:.1f} ms",
        )
        if abs(skew) > SKEW_S:
            text = f"the run database's is {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} this host's"
            yield warning("clock", text, "set the clock right (chronyc tracking, timedatectl)")
        else:
            yield ok("clock", f"differs from the run database's by {abs(skew):.2f} s")
        yield _indexes(db, site)
        yield from _runs(db, site)
        yield from check_selection.verdicts(db, site)
        yield _modes(db, site.config)


def _folders(db: RunDb, site: Site) -> Iterator[Verdict]:
    """Where a file and the DAQ's folders stand for the database."""
    from straxflow.rundb.folders import discovery_of

    known = db.runs.count_documents({})
    yield ok("run file", f"{db.runs.full_name}: {known} runs, with those in the DAQ's folders")
    problems = discovery_of(site.config).problems
    if problems:
        more = f"\nand {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        yield failed("discovery", "\n".join(problems[:NAMED]) + more, "these runs are not found until then")
    else:
        yield ok("discovery", "all folders were read")
    yield from _runs(db, site)
    yield _modes(db, site.config)


def _clock(db: RunDb) -> tuple[float, float]:
    """How far the database's clock is ahead of ours, and how long it takes to answer; s."""
    skews, latencies = [], []
    for _ in range(5):
        began, asked = time.perf_counter(), datetime.now(UTC)
        there = db.now()
        latency = time.perf_counter() - began
        skews.append((there - asked - timedelta(seconds=latency / 2)).total_seconds())
        latencies.append(latency)
    return statistics.median(skews), statistics.median(latencies)


def _indexes(db: RunDb, site: Site) -> Verdict:
    lacking = indexes.missing(db, site.campaign, site.config.states)
    if lacking:
        names = "; ".join(map(indexes.describe, lacking))
        return warning("indexes", f"missing: {names}", "straxflow init makes them; without, claims grow slow")
    return ok("indexes", "all there")


def _runs(db: RunDb, site: Site) -> Iterator[Verdict]:
    problems: list[str] = malformed_numbers(db)
    pending = sum(1 for _ in islice(candidates(db, site.config, site.campaign, problems.append), MOST))
    claimed = db.runs.count_documents({f"straxflow.{site.campaign}.claim.batch": {"$gt": ""}})
    many = f"{pending}{' or more' if pending == MOST else ''}"
    yield ok("runs", f"{many} pending, {claimed} claimed")
    if problems:
        more = f"\nand {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        text = "\n".join(problems[:NAMED]) + more
        yield warning("run documents", text, "correct these documents; the other runs go on")
    else:
        yield ok("run documents", "none of the pending ones is malformed")


def _modes(db: RunDb, config: Config) -> Verdict:
    modes = sorted(mode for mode in db.runs.distinct("mode", scope(config)) if isinstance(mode, str))
    left = [mode for mode in modes if not config.selects_mode(mode)]
    bare = [mode for mode in modes if mode not in left and not config.products_for(mode)]
    parts = []
    if left:
        parts.append(f"not in runs.modes: {', '.join(left)}")
    if bare:
        parts.append(f"in no product's modes: {', '.join(bare)}")
    if parts:
        remedy = "if their runs are wanted, add them in the config"
        return warning(
            "run modes", f"runs of {len(left) + len(bare)} modes are not processed; {'; '.join(parts)}", remedy
        )
    return ok("run modes", f"a product for each of {len(modes)}: {', '.join(modes)}" if modes else "no runs yet")
