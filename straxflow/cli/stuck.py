"""`straxflow stuck`: runs that do not come on, why, and what to do."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from datetime import timedelta

from straxflow.cli.output import Table, add, clock, emit, emit_json, one_line, table
from straxflow.cli.site import Site, open_site
from straxflow.cli.times import length_s
from straxflow.folders import marker_site
from straxflow.fsio import check_marker
from straxflow.reports.database import ask
from straxflow.reports.runtable import Choice, from_state
from straxflow.reports.stuck import KINDS, Kind, Search, Stuck
from straxflow.rundb.client import RunDb
from straxflow.runlist import FORMS, parse_runs

EACH = 20

DESCRIPTION = (
    "Lists runs that do not come on, why, and what to do: malformed documents, dead owners, runs that are claimed but\n"
    "do not move, failed for good, without an end, without THE_END at the DAQ (if it can be reached), waiting for\n"
    "their next try, pending but not claimed, held by a tag. Exit code 1 if one of them needs a person (all but those\n"
    "that wait or are held), or the run database did not answer."
)
EXAMPLES = (
    "straxflow --profile stoomboot stuck",
    "straxflow --profile stoomboot stuck --idle 2h --no-daq 900-950",
)
NO_HASTE: tuple[Kind, ...] = ("waits", "held")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("runs", metavar="RUN", nargs="*", help=f"only these: {FORMS}")
    parser.add_argument("--idle", metavar="LENGTH", default="30min", help="how long nothing may move (30min)")
    parser.add_argument("--no-daq", action="store_true", help="do not look at the DAQ's disk")
    parser.add_argument("--all", action="store_true", help=f"all runs of a kind, not just {EACH}")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the runs."""
    site = open_site(arguments)
    config, state = site.config, site.state
    check_marker(state.folder, "state", marker_site(config, "state", state))
    idle = timedelta(seconds=length_s(arguments.idle, "--idle"))
    runs = parse_runs(arguments.runs, config) if arguments.runs else None

    def question(db: RunDb) -> tuple[list[Stuck], str | None]:
        search = Search(db, config, state, site.campaign, idle, runs, not arguments.no_daq)
        return list(search.find()), search.daq_problem

    answer, problem = ask(config, question)
    found, daq_problem = answer or (list(_by_state(site, Choice(runs=runs))), None)
    order = list(KINDS)
    found.sort(key=lambda one: (order.index(one.kind), -(one.number or 0)))
    if arguments.json:
        emit_json({"rundb_problem": problem, "daq_problem": daq_problem, "stuck": found})
    else:
        emit(*_told(found, problem, arguments.all))
        if daq_problem:
            emit(f"the DAQ's disk was not looked at: {daq_problem}")
    return 1 if problem or any(one.kind not in NO_HASTE for one in found) else 0


def _by_state(site: Site, choice: Choice) -> Iterator[Stuck]:
    """What the state folder tells while the run database is away."""
    for row in from_state(site.config, site.state, choice):
        why = row.reason or "no reason is known"
        if row.state in ("failed", "damaged"):
            yield Stuck(row.run, row.number, "left to a person", row.start, why, f"straxflow logs {row.run}")
        elif row.state == "waiting":
            yield Stuck(row.run, row.number, "waits", row.start, why, "nothing")


def _told(found: Sequence[Stuck], problem: str | None, everything: bool) -> Iterator[Table | str]:
    if problem:
        yield f"by the state folder alone: {problem}"
    for kind, meaning in KINDS.items():
        rows = [one for one in found if one.kind == kind]
        if not rows:
            continue
        yield f"{kind}: {meaning} ({len(rows)} run{'s' * (len(rows) != 1)})"
        made = table("  run", "since (UTC)", "~why", "~what to do")
        for one in rows if everything else rows[:EACH]:
            add(made, f"  {one.run}", clock(one.since), one_line(one.why), one.remedy)
        yield made
        if len(rows) > EACH and not everything:
            yield f"  and {len(rows) - EACH} more (--all)"
        yield ""
    if not found:
        yield "no run is stuck"
