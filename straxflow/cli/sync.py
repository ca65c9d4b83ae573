"""`straxflow sync`: run documents brought in line with the receipts."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from itertools import chain

from straxflow import actions
from straxflow.cli.changes import run_words
from straxflow.cli.site import Site, open_site
from straxflow.errors import UsageError
from straxflow.folders import check_folders
from straxflow.rundb.client import Document, connect
from straxflow.runlist import parse_runs
from straxflow.sync import Change, Outcome, Sync

DESCRIPTION = (
    "Compares what run documents say of runs that nobody works on with the receipts of this site, and corrects the\n"
    "documents: what is done is done, what an invocation left as running is pending, a done run whose receipts are\n"
    "gone is pending again; details of products and the history of attempts are completed. Only states that straxflow\n"
    "wrote are changed: what a person or another tool wrote stays, pending above all.\n"
    "Without RUN or --all: the runs in doubt and the newest 200."
)
EXAMPLES = (
    "straxflow --profile stoomboot sync --dry-run",
    "straxflow --profile stoomboot sync 900-950",
    "straxflow --profile stoomboot sync --all --yes-downgrade",
)
NEWEST = 200
SHOWN = 100


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    run_words(parser, "*")
    parser.add_argument("--all", action="store_true", help="all runs of the campaign")
    parser.add_argument("-n", "--dry-run", action="store_true", help="only say what would be changed")
    parser.add_argument("--json", action="store_true", help="the outcome as JSON")
    parser.add_argument(
        "--yes-downgrade",
        action="store_true",
        help="take `done` from runs even if they are many: their receipts are really gone",
    )


def run(arguments: argparse.Namespace) -> int:
    """Correct the documents; 1 if downgrades were refused or a document could not be read."""
    if arguments.runs and arguments.all:
        raise UsageError("name runs, or give --all, not both")
    site = open_site(arguments)
    check_folders(site.config, site.state)
    with connect(site.config) as db:
        sync = Sync(db, site.config, site.state, site.campaign, arguments.dry_run)
        outcome = sync.run(_documents(arguments, site, sync), arguments.yes_downgrade)
        attempts = sum(sync.attempts(run) for run in outcome.runs)
        states = [change for change in outcome.changes if change.kind != "details"]
        if states and not arguments.dry_run:
            actions.record(db, site.config, site.campaign, "sync", [change.run for change in states])
    if arguments.json:
        print(json.dumps(_as_json(arguments, site, outcome, attempts), indent=1))
    else:
        _print(arguments, outcome, attempts)
    return 1 if outcome.refused or outcome.problems else 0


def _documents(arguments: argparse.Namespace, site: Site, sync: Sync) -> Iterable[Document]:
    if arguments.runs:
        return sync.named(parse_runs(arguments.runs, site.config))
    if arguments.all:
        return chain(sync.newest(), sync.with_receipts())
    return chain(sync.in_doubt(NEWEST), sync.newest(NEWEST))


def _print(arguments: argparse.Namespace, outcome: Outcome, attempts: int) -> None:
    states = [change for change in outcome.changes if change.kind != "details"]
    for change in states[:SHOWN]:
        print(f"run {change.run}: {change.text}")
    if len(states) > SHOWN:
        print(f"... and {len(states) - SHOWN} more")
    for run, note in outcome.notes.items():
        print(f"run {run}: {note}")
    would = "would be " if arguments.dry_run else ""
    details = len(outcome.changes) - len(states)
    print(
        f"{len(outcome.runs)} runs looked at: {len(states)} states and the details of {details} more {would}corrected, "
        f"{attempts} attempts {would}added to the history"
    )
    for run, problem in outcome.problems.items():
        print(f"run {run}: {problem}", file=sys.stderr)
    if outcome.refused:
        named = ", ".join(change.run for change in outcome.refused[:10]) + (
            ", ..." if len(outcome.refused) > 10 else ""
        )
        print(
            f"refused: {outcome.why_refused} (run {named}): is the state folder whole? straxflow rebuild makes lost "
            "receipts anew; --yes-downgrade if they are really gone",
            file=sys.stderr,
        )


def _as_json(arguments: argparse.Namespace, site: Site, outcome: Outcome, attempts: int) -> Document:
    return {
        "campaign": site.campaign,
        "dry_run": arguments.dry_run,
        "looked_at": len(outcome.runs),
        "changes": [_change(change) for change in outcome.changes],
        "refused": [_change(change) for change in outcome.refused],
        "why_refused": outcome.why_refused,
        "attempts_added": attempts,
        "notes": outcome.notes,
        "problems": outcome.problems,
    }


def _change(change: Change) -> Document:
    names = ("run", "kind", "before", "after", "reason")
    return {name: getattr(change, name) for name in names}
