"""`straxflow adopt`: take over what an older tool made."""

from __future__ import annotations

import argparse

from straxflow.cli import confirm, rebuild
from straxflow.cli.changes import run_words

DESCRIPTION = (
    "Takes over runs that an older tool processed: their data in the store are read whole, compared with strax' own\n"
    "metadata and with their entries in the run document, and given receipts. The entries stay as they are. A run of\n"
    "which everything is there is done; what is not there, or does not fit, is said, and nothing is claimed of it:\n"
    "`straxflow process RUN` makes it. Runs below runs.min_run_number are never touched: lower it first."
)
EXAMPLES = (
    "straxflow --profile stoomboot adopt 700-899 --dry-run",
    "straxflow --profile stoomboot adopt 700-899 --reason 'from amstrax'",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    run_words(parser, "*")
    parser.add_argument("--all", action="store_true", help="every run that has data of this site")
    confirm.options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Adopt the runs; 1 if one of them is not whole afterwards."""
    return rebuild.carry_out(arguments, "adopt", any_tool=True)
