"""`straxflow tag`: give runs a tag."""

from __future__ import annotations

import argparse
import re

from straxflow.cli import confirm
from straxflow.cli.changes import carry_out, run_words
from straxflow.cli.site import open_site
from straxflow.errors import UsageError
from straxflow.rundb.rundoc import not_by_a_shadow

DESCRIPTION = (
    "Gives runs a tag, which all tools read that share the run documents; a run that has it already stays as it is.\n"
    "What tags do is in the configuration (runs.tags). A run that is being worked on may be tagged too:\n"
    "the tag counts from its next claim on."
)
EXAMPLES = (
    "straxflow --profile stoomboot tag abandon 932 940-945 --reason 'high voltage tripped'",
    "straxflow --profile stoomboot untag hold-processing @runs.txt",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("tag", metavar="TAG", help="the tag, e.g. abandon")
    run_words(parser)
    confirm.options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Tag the runs."""
    tag = tag_name(arguments)
    return carry_out(arguments, f"tag {tag}", lambda orders, run: orders.tag(run, tag))


def tag_name(arguments: argparse.Namespace) -> str:
    """The tag of the command line.

    Raises:
        UsageError: if it looks like a run, is no word, or if tags are not ours to change.
    """
    tag = str(arguments.tag)
    if re.fullmatch(r"[0-9]+(-[0-9]+)?|@.*", tag):
        raise UsageError(f"{tag!r} names runs; the tag comes first: straxflow {arguments.command} TAG RUN...")
    if not re.fullmatch(r"\S{1,100}", tag) or not tag.isprintable():
        raise UsageError(f"{tag!r} is no tag: expected one word of up to 100 characters")
    not_by_a_shadow(open_site(arguments).config, "the tags of a run")
    return tag
