"""How commands that change run documents go about it: choose the runs, ask, write, tell, log who did it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from straxflow import actions
from straxflow.cli import confirm
from straxflow.cli.site import Site, open_site
from straxflow.errors import UsageError
from straxflow.extent import measure
from straxflow.hold import held
from straxflow.rundb.chosen import Chosen, choose, failed
from straxflow.rundb.client import RunDb, connect
from straxflow.rundb.orders import Orders, Outcome
from straxflow.runlist import parse_runs

RUNS_HELP = "932, 000932, 900-950, @FILE with one of these a line, or a name"
SHOWN = 50
"""Runs told one by one at most, of those that went well."""

Give = Callable[[Orders, Chosen], Outcome]


def run_words(parser: argparse.ArgumentParser, nargs: str = "+") -> None:
    """The argument RUN..."""
    parser.add_argument("runs", nargs=nargs, metavar="RUN", help=RUNS_HELP)


def carry_out(arguments: argparse.Namespace, doing: str, give: Give, *, all_failed: bool = False) -> int:
    """Give an order to each of the named runs (or to all failed ones); the exit code of the command."""
    site = open_site(arguments)
    named = parse_runs(arguments.runs, site.config) if not all_failed else None
    with connect(site.config) as db:
        chosen, problems = choose(db, site.config, named) if named else failed(db, site.config, site.campaign)
        extent = (
            measure(site.config, site.state, [run.id for run in chosen]) if len(chosen) > confirm.ASK_ABOVE else None
        )
        if extent:
            confirm.confirm(arguments, doing, extent)
        outcomes = give_all(db, site, arguments, doing, give, chosen)
    tell(arguments, site, outcomes, problems)
    return 1 if problems or any(outcome.result == "refused" for outcome in outcomes) else 0


def give_all(
    db: RunDb, site: Site, arguments: argparse.Namespace, doing: str, give: Give, chosen: Sequence[Chosen]
) -> list[Outcome]:
    """Give an order to each of these runs, and write down who gave it."""
    orders = Orders(
        db,
        site.config,
        site.campaign,
        reason=one_line(arguments.reason, "--reason"),
        dry=arguments.dry_run,
        stop_dead=partial(_stop_dead, site),
    )
    outcomes: list[Outcome] = []
    try:
        for run in chosen:
            outcomes.append(give(orders, run))
    finally:
        # Ctrl-C half-way: what was done is written down all the same
        changed = [outcome.run for outcome in outcomes if outcome.result == "changed"]
        if changed and not arguments.dry_run:
            actions.record(db, site.config, site.campaign, doing, changed, orders.reason)
    return outcomes


def _stop_dead(site: Site, run: str) -> None:
    with held(site.config, site.state, site.campaign, [run]):
        pass


def tell(
    arguments: argparse.Namespace,
    site: Site,
    outcomes: Sequence[Outcome],
    problems: Sequence[str],
    more: Mapping[str, Any] | None = None,
) -> None:
    """Print what became of each run; with --json also `more`."""
    changed = sum(outcome.result == "changed" for outcome in outcomes)
    if arguments.json:
        told = {
            "campaign": site.campaign,
            "dry_run": arguments.dry_run,
            "changed": changed,
            "runs": [asdict(outcome) for outcome in outcomes],
            "problems": list(problems),
            **(more or {}),
        }
        print(json.dumps(told, indent=1))
        return
    well = [outcome for outcome in outcomes if outcome.result != "refused"]
    for outcome in well[:SHOWN]:
        print(f"run {outcome.run}: {outcome.text}")
    if len(well) > SHOWN:
        print(f"... and {len(well) - SHOWN} more")
    for outcome in outcomes:
        if outcome.result == "refused":
            print(f"run {outcome.run}: left alone: {outcome.text}", file=sys.stderr)
    for problem in problems:
        print(problem, file=sys.stderr)
    if len(outcomes) > 1:
        print(f"{changed} of {len(outcomes)} runs {'would be ' if arguments.dry_run else ''}changed")


def one_line(text: str | None, what: str) -> str | None:
    """A text for the database, without line breaks around or in it.

    Raises:
        UsageError: if it is empty.
    """
    if text is None:
        return None
    words = " ".join(text.split())
    if not words:
        raise UsageError(f"{what} is empty")
    return words
