"""The options that writing commands share, and the question before what is large or deletes."""

from __future__ import annotations

import argparse
import sys

from straxflow.errors import StraxflowError, UsageError
from straxflow.extent import Extent

ASK_ABOVE = 200
"""Runs that a command may touch without being asked."""


def options(parser: argparse.ArgumentParser, *, reason: bool = True, reason_required: bool = False) -> None:
    """--dry-run, --yes, --json, --reason."""
    parser.add_argument("-n", "--dry-run", action="store_true", help="only say what would be done")
    parser.add_argument("-y", "--yes", action="store_true", help=f"do not ask, not even above {ASK_ABOVE} runs")
    parser.add_argument("--json", action="store_true", help="the outcome as JSON")
    if reason:
        parser.add_argument(
            "--reason", metavar="TEXT", required=reason_required, help="why; kept with who did it, and shown"
        )


def confirm(arguments: argparse.Namespace, doing: str, extent: Extent, *, deletes: bool = False) -> None:
    """Show what is about to be touched and ask, if it is much or deletes; does nothing in a dry run.

    Raises:
        UsageError: if nobody can be asked, as there is no terminal, and --yes was not given.
        StraxflowError: if the answer is no.
    """
    if extent.runs <= ASK_ABOVE and not deletes:
        return
    print(f"{doing}: {extent}", file=sys.stderr)
    if arguments.dry_run or arguments.yes:
        return
    if not sys.stdin.isatty():
        why = "deletes" if deletes else f"touches more than {ASK_ABOVE} runs"
        raise UsageError(f"it {why}, and there is no terminal to ask at: give --yes if it is meant; nothing was done")
    print("Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise StraxflowError("nothing was done")
