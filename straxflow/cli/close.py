"""`straxflow close`: end a run that its DAQ did not end."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from straxflow import actions, redo
from straxflow.cli import confirm
from straxflow.cli.changes import one_line, run_words
from straxflow.cli.site import Site, open_site
from straxflow.close import Closing, look
from straxflow.errors import StraxflowError
from straxflow.hold import held
from straxflow.receipts import RunFacts
from straxflow.rundb.chosen import Chosen, choose
from straxflow.rundb.client import RunDb, connect
from straxflow.rundb.orders import Orders
from straxflow.rundb.rundoc import not_by_a_shadow
from straxflow.runlist import parse_runs

DESCRIPTION = (
    "Ends runs whose DAQ crashed before it could: without an end in the document, or without a whole THE_END. The\n"
    "DAQ's disk is looked at twice, a few chunks' time apart; what is still being written is left alone. If not\n"
    "everything is there, --partial takes the good chunks, those in which every thread has all its files, from the\n"
    "start of the run on; the end in the document, the receipts and the data entries say so."
)
EXAMPLES = ("straxflow --profile stoomboot close 932 --partial --reason 'DAQ lost power'",)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    run_words(parser)
    parser.add_argument("--partial", action="store_true", help="take the good chunks, if not all are")
    confirm.options(parser, reason_required=True)


def run(arguments: argparse.Namespace) -> int:
    """Close the runs, one after the other."""
    site = open_site(arguments)
    arguments.reason = one_line(arguments.reason, "--reason")
    not_by_a_shadow(site.config, "the end and the data of a run")
    told: list[dict[str, Any]] = []
    with connect(site.config) as db:
        chosen, problems = choose(db, site.config, parse_runs(arguments.runs, site.config))
        for one in chosen:
            try:
                closing = _close(db, site, arguments, one)
            except StraxflowError as error:
                problems.append(str(error))
                continue
            told.append({"run": one.id, "chunks": closing.found.good, "of": closing.found.begun,
                         "partial": closing.partial, "end": closing.end.isoformat()})  # fmt: skip
            if not arguments.json:
                print(f"run {one.id}: {'would be closed' if arguments.dry_run else 'closed'}, {closing}")
    if arguments.json:
        print(json.dumps({"dry_run": arguments.dry_run, "closed": told, "problems": problems}, indent=1))
    else:
        for problem in problems:
            print(problem, file=sys.stderr)
    return 1 if problems else 0


def _close(db: RunDb, site: Site, arguments: argparse.Namespace, run: Chosen) -> Closing:
    orders = Orders(db, site.config, site.campaign, reason=arguments.reason)
    if holder := orders.holder(run):
        raise StraxflowError(f"run {run.id}: {holder}")
    document = db.runs.find_one({"_id": run.object_id}, {"data": 0}) or run.document
    closing = look(site.config, site.state, site.campaign, run, document)
    if closing.partial and not arguments.partial:
        raise StraxflowError(f"run {run.id}: {closing}; give --partial to take the good ones")
    if closing.has_end and not closing.partial:
        raise StraxflowError(f"run {run.id}: has an end and is whole; there is nothing to close")
    if arguments.dry_run:
        return closing
    fields = closing.fields(orders.user, arguments.reason, orders.now)
    facts = site.state.run(run.id) / RunFacts.name
    if closing.has_end:
        # held, so that no invocation goes on with the facts that it had
        with held(site.config, site.state, site.campaign, [run.id]) as invocation:
            orders.pending_while_held(run, invocation.batch, "closed", fields)
            if facts.is_file():
                redo.set_aside(site.state, run.id, "transfer", [facts], {"by": orders.user, "reason": arguments.reason})
    else:
        orders.close(run, fields)
    doing = f"close --partial ({closing.found.good} of {closing.found.begun} chunks)" if closing.partial else "close"
    actions.record(db, site.config, site.campaign, doing, [run.id], arguments.reason)
    return closing
