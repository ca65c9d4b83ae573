"""`straxflow rebuild`: receipts made anew from the stores and the run database."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator

from straxflow import actions
from straxflow.cli import confirm
from straxflow.cli.changes import one_line, run_words
from straxflow.cli.site import Site, open_site
from straxflow.errors import UsageError
from straxflow.extent import Extent
from straxflow.rebuild import Rebuilder, Rebuilt
from straxflow.rundb.chosen import Chosen, choose, with_data
from straxflow.rundb.client import RunDb, connect
from straxflow.rundb.rundoc import Malformed, parse
from straxflow.runlist import parse_runs

DESCRIPTION = (
    "Makes lost receipts anew, for runs whose state folder was lost or damaged: reads the data in the store (or in\n"
    "staging) whole, compares them with strax' own metadata, with their entries in the run document and with the hash\n"
    "list, where there is one. A receipt that is there and valid stays. What cannot be verified is not claimed: the\n"
    "report says why, and the workflow makes it again."
)
EXAMPLES = (
    "straxflow --profile stoomboot rebuild 932 --dry-run",
    "straxflow --profile stoomboot rebuild --all",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    run_words(parser, "*")
    parser.add_argument("--all", action="store_true", help="every run that has data of this site")
    confirm.options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Rebuild the receipts of runs; 1 if one of them is not whole afterwards."""
    return carry_out(arguments, "rebuild")


def carry_out(arguments: argparse.Namespace, doing: str, *, any_tool: bool = False) -> int:
    """Make receipts from data that are there; with `any_tool` from those of other tools too."""
    if bool(arguments.runs) == arguments.all:
        raise UsageError("name runs, or give --all")
    site = open_site(arguments)
    reason = one_line(arguments.reason, "--reason")
    work = Rebuilder(site.config, site.state, site.campaign, dry_run=arguments.dry_run, any_tool=any_tool)
    work.check()
    with connect(site.config) as db:
        if arguments.all:
            chosen, problems = with_data(db, site.config, site.campaign)
        else:
            chosen, problems = choose(db, site.config, parse_runs(arguments.runs, site.config))
        confirm.confirm(arguments, doing, Extent(len(chosen)))
        results = []
        for result in _results(db, site, work, chosen):
            results.append(result)
            if not arguments.json:
                print(_told(result, arguments.dry_run), flush=True)
        changed = [r.run for r in results if any(part.rebuilt for part in r.parts)]
        if changed and not arguments.dry_run:
            actions.record(db, site.config, site.campaign, doing, changed, reason)
    whole = sum(result.whole for result in results)
    if arguments.json:
        told = {"campaign": site.campaign, "dry_run": arguments.dry_run, "problems": problems}
        print(json.dumps({**told, "runs": [result.as_json() for result in results]}, indent=1))
    else:
        for problem in problems:
            print(problem, file=sys.stderr)
        print(f"{whole} of {len(results)} runs {'would be' if arguments.dry_run else 'are'} whole")
    return 0 if whole == len(results) and not problems else 1


def _results(db: RunDb, site: Site, work: Rebuilder, chosen: list[Chosen]) -> Iterator[Rebuilt]:
    for one in chosen:
        document = db.runs.find_one({"_id": one.object_id})
        try:
            if document is None:
                yield Rebuilt(one.id, problem="its document has just gone")
            else:
                yield work.rebuild(parse(document, site.config, site.campaign))
        except Malformed as error:
            yield Rebuilt(one.id, problem=str(error))


def _told(result: Rebuilt, dry_run: bool) -> str:
    if result.problem:
        return f"run {result.run}: left alone: {result.problem}"
    made = [f"{part.name} ({', '.join(part.rebuilt)})" for part in result.parts if part.rebuilt]
    lines = [
        f"run {result.run}: {'would rebuild' if dry_run else 'rebuilt'} {', '.join(made)}"
        if made
        else f"run {result.run}: nothing to rebuild"
    ]
    for part in result.parts:
        lines += [f"  {part.name}: {text}" for text in (*part.problems, *part.notes)]
    if result.missing:
        lines.append(f"  still missing: {', '.join(result.missing)}")
    return "\n".join(lines)
