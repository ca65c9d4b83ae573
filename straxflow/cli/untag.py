"""`straxflow untag`: take a tag from runs."""

from __future__ import annotations

import argparse

from straxflow.cli import confirm
from straxflow.cli.changes import carry_out, run_words
from straxflow.cli.tag import tag_name

DESCRIPTION = "Takes a tag from runs, whoever gave it; a run without it stays as it is."
EXAMPLES = ("straxflow --profile stoomboot untag hold-processing 932",)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("tag", metavar="TAG", help="the tag, e.g. hold-processing")
    run_words(parser)
    confirm.options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Take the tag from the runs."""
    tag = tag_name(arguments)
    return carry_out(arguments, f"untag {tag}", lambda orders, run: orders.untag(run, tag))
