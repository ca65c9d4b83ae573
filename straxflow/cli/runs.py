"""`straxflow runs`: one line a run, newest first."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice

from straxflow.cli.output import Table, add, clock, coloured, emit, emit_json, one_line, size, span, table, times
from straxflow.cli.site import Site, open_site
from straxflow.cli.times import FORMS, moment
from straxflow.errors import UsageError
from straxflow.folders import marker_site
from straxflow.fsio import check_marker
from straxflow.reports.database import ask
from straxflow.reports.documents import STATES, RunRow
from straxflow.reports.runtable import Choice, from_database, from_state
from straxflow.rundb.client import RunDb
from straxflow.rundb.pending import malformed_numbers
from straxflow.runlist import FORMS as RUN_FORMS
from straxflow.runlist import parse_runs

DESCRIPTION = (
    "Lists runs, newest first, one a line, by their run documents; while the run database is away, by the state\n"
    "folder. `made` are the products that this site has registered. Exit code 1 if the database did not answer."
)
MOST = 1_000_000
"""Runs that can be asked for by number; no experiment has more."""
EXAMPLES = (
    "straxflow --profile stoomboot runs --state failed",
    "straxflow --profile stoomboot runs --mode '*led*' --since 7d --limit 0",
    "straxflow --profile stoomboot runs --range 900-950 --json",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument(
        "--state", metavar="S", help=f"only these: {', '.join(STATES)}, or a word that an older tool writes"
    )
    parser.add_argument("--mode", metavar="M", action="append", default=[], help="only this mode (* and ? allowed)")
    parser.add_argument("--range", metavar="R", action="append", default=[], help=f"only these runs: {RUN_FORMS}")
    parser.add_argument("--detector", metavar="D", action="append", default=[], help="only runs with this detector")
    parser.add_argument("--tag", metavar="T", action="append", default=[], help="only runs with this tag")
    parser.add_argument("--since", metavar="WHEN", help=f"only runs that began then or later: {FORMS}")
    parser.add_argument("--until", metavar="WHEN", help="only runs that began before")
    parser.add_argument("--limit", metavar="N", type=int, default=50, help="at most so many (default 50; 0: all)")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the runs."""
    if not 0 <= arguments.limit <= MOST:
        raise UsageError(f"--limit {arguments.limit}: expected a number from 0 (all) to {MOST}")
    site = open_site(arguments)
    choice = Choice(
        state=arguments.state,
        modes=tuple(arguments.mode),
        detectors=tuple(arguments.detector),
        tags=tuple(arguments.tag),
        runs=parse_runs(arguments.range, site.config) if arguments.range else None,
        since=moment(arguments.since, "--since") if arguments.since else None,
        until=moment(arguments.until, "--until") if arguments.until else None,
    )
    most = arguments.limit or None

    def question(db: RunDb) -> tuple[list[RunRow], list[str]]:
        return list(islice(from_database(db, site.config, site.campaign, choice), most and most + 1)), (
            malformed_numbers(db)
        )

    answer, problem = ask(site.config, question)
    if answer is None:
        # an unmounted disk must not look like a site without runs
        check_marker(site.state.folder, "state", marker_site(site.config, "state", site.state))
        answer = list(islice(from_state(site.config, site.state, choice), most and most + 1)), []
    rows, odd = answer
    more = most is not None and len(rows) > most
    rows = rows[:most]
    if arguments.json:
        emit_json({"rundb_problem": problem, "more": more, "malformed": odd, "runs": rows})
        return 1 if problem else 0
    if problem:
        emit(f"by the state folder alone, which knows no tags: {problem}")
    emit(_table(site, rows) if rows else "no such runs")
    if more:
        emit(f"only the newest {most} are shown (--limit)")
    emit(*odd)
    return 1 if problem else 0


def _table(site: Site, rows: list[RunRow]) -> Table:
    made = table("run", "~mode", "start (UTC)", ">length", ">live", ">MB/s", "state", "~made", "~tags", "~notes")
    for row in rows:
        wanted = site.config.products_for(row.mode)
        done = [name for name in wanted if name in row.products]
        products = "all" if wanted and done == wanted else ", ".join(done)
        live = f"~{size(row.bytes)}" if row.estimated else size(row.bytes)
        rate = f"{row.rate_mb_s:.3g}" if row.rate_mb_s is not None else ""
        add(
            made, row.run or row.number or "?", row.mode, clock(row.start), span(row.seconds), live, rate,
            coloured(row.state), products, ", ".join(row.tags), "; ".join(_notes(row)),
        )  # fmt: skip
    return made


def _notes(row: RunRow) -> Iterator[str]:
    if row.problem:
        yield row.problem
    if row.claimant and row.claimant.alive:
        yield f"claimed by {row.claimant}"
    if row.reason and row.state not in ("done", "working"):
        yield one_line(row.reason)
    if row.failures and row.state != "done":
        yield f"failed {times(row.failures, 'time')}"
    if row.due:
        yield f"due again {clock(row.due)}"
