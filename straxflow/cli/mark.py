"""`straxflow mark`: set the state of runs by hand."""

from __future__ import annotations

import argparse

from straxflow.cli import confirm
from straxflow.cli.changes import carry_out, run_words

DESCRIPTION = (
    "Sets the state of runs by hand. --done: taken for done although nothing was made of them; it stays so until they\n"
    "are marked pending or retried. --pending: to be worked on; what is not whole is made again.\n"
    "The reason stands in the run document, with who gave it."
)
EXAMPLES = (
    "straxflow --profile stoomboot mark 932 --done --reason 'made by hand in March'",
    "straxflow --profile stoomboot mark 900-950 --pending --reason 'store was damaged'",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    run_words(parser)
    state = parser.add_mutually_exclusive_group(required=True)
    state.add_argument("--done", action="store_true", help="done, without running anything")
    state.add_argument("--pending", action="store_true", help="to be worked on")
    confirm.options(parser, reason_required=True)


def run(arguments: argparse.Namespace) -> int:
    """Mark the runs."""
    if arguments.done:
        return carry_out(arguments, "mark done", lambda orders, run: orders.mark_done(run))
    return carry_out(arguments, "mark pending", lambda orders, run: orders.mark_pending(run))
