"""`straxflow retry`: failed runs are pending again."""

from __future__ import annotations

import argparse

from straxflow.cli import confirm
from straxflow.cli.changes import carry_out, run_words
from straxflow.errors import UsageError

DESCRIPTION = (
    "Makes runs pending again, as if they had never failed: the count of failures and the pause before the next try\n"
    "are forgotten. What they have got already is checked and kept. A run that is being worked on is left alone."
)
EXAMPLES = (
    "straxflow --profile stoomboot retry 932",
    "straxflow --profile stoomboot retry --all-failed --reason 'disk is back' --dry-run",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    run_words(parser, "*")
    parser.add_argument(
        "--all-failed", action="store_true", help="every failed run of this site, instead of named ones"
    )
    confirm.options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Make the runs pending."""
    if bool(arguments.runs) == arguments.all_failed:
        raise UsageError("name runs, or give --all-failed")
    return carry_out(arguments, "retry", lambda orders, run: orders.retry(run), all_failed=arguments.all_failed)
