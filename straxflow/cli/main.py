"""The command line: options, commands, exit codes. Each command is imported when it is called."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import straxflow
from straxflow.errors import ConfigError, StraxflowError, UsageError

_EPILOG = """\
exit codes: 0 good; 1 a problem found, or failed; 2 the command line or the configuration is wrong

examples:
  straxflow --profile stoomboot init            make the folders of the site, once
  straxflow --profile stoomboot check           is everything in order?
  straxflow --profile stoomboot runs            the newest runs
  straxflow --profile stoomboot show 3012       what became of this run

all commands, with examples: docs/commands.md
"""
COMMANDS = {
    "init": "make the site's folders, their identity markers and the database's indexes",
    "check": "is everything in order? One line each",
    "watch": "keep the site going without a person",
    "status": "how every run stands, what failed and why",
    "process": "make products of named runs now",
    "redo": "do steps of runs again",
    "runs": "the runs by state, mode, number, time: one line each",
    "show": "everything about a run",
    "logs": "what the steps of a run said",
    "stats": "figures over many runs: volumes, rates, latency, costs, failures",
    "plan": "what would be done for runs, and how much CPU, space and time it takes",
    "stuck": "runs that do not come on, why, and what to do",
    "space": "room on the disks, what could be released, and leftovers",
    "health": "one line and an exit code for a monitor",
    "adopt": "take over what an older tool made: verified, with receipts",
    "reprocess": "make products of many runs anew, in a campaign of their own",
    "close": "end a run that its DAQ did not end",
    "tag": "give runs a tag",
    "untag": "take a tag from runs",
    "retry": "failed runs are pending again",
    "mark": "set the state of runs by hand: done, or pending",
    "sync": "run documents brought in line with the receipts",
    "rebuild": "lost receipts made anew from the stores and the run database",
    "switch": "turn automatic work on and off for everybody",
    "dashboard": "the status page, in a browser",
    "compare": "are our data those that another tool made?",
    "versions": "versions, paths and git state of the software",
    "config": "the configuration in effect, its reference, its schema",
    "completion": "a script with which the shell completes commands and options",
}
"""Each is a module of this package; what it does in a line."""
_CONFIG_ENDINGS = (".yaml", ".yml", ".json")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit code."""
    words = _config_files_apart(sys.argv[1:] if argv is None else argv)
    arguments = parser_of(words).parse_args(words)
    if "campaign" in arguments:
        os.environ["STRAXFLOW_CAMPAIGN"] = arguments.campaign
    command = module_of(arguments.command)
    try:
        code: int = command.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # output into `head` or a closed pager; what the buffer still holds must not fail again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except StraxflowError as error:
        print(f"straxflow {arguments.command}: {error}", file=sys.stderr)
        return 2 if isinstance(error, (ConfigError, UsageError)) else 1
    except KeyboardInterrupt:
        return 130
    return code


def parser_of(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser; of the commands only those that are among the words have their options."""
    site = _site_options()
    parser = argparse.ArgumentParser(
        prog="straxflow",
        description="Looks after a straxflow site; the work itself is done by snakemake, with the same profiles.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[site],
    )
    parser.add_argument("--version", action="version", version=f"straxflow {straxflow.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        one = commands.add_parser(
            name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter, parents=[site]
        )
        # only what is called is imported: starting must stay quick with many commands
        if name in words:
            module = module_of(name)
            one.description = module.DESCRIPTION
            one.epilog = "\n  ".join(["example:" if len(module.EXAMPLES) == 1 else "examples:", *module.EXAMPLES])
            module.arguments(one)
    return parser


def module_of(command: str) -> Any:
    """The module of a command: DESCRIPTION, EXAMPLES, arguments(parser), run(arguments)."""
    return importlib.import_module(f"straxflow.cli.{command}")


def _site_options() -> argparse.ArgumentParser:
    """Options that stand before or after the command; SUPPRESS keeps the one place from erasing the other."""
    options = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    group = options.add_argument_group("site, as for snakemake")
    group.add_argument(
        "--profile", metavar="NAME", help="the snakemake profile (default: $SNAKEMAKE_PROFILE, or local)"
    )
    group.add_argument(
        "--configfile",
        "--configfiles",
        metavar="FILE...",
        dest="configfiles",
        action="append",
        help="configuration files instead of those of the profile, later over earlier",
    )
    group.add_argument("--campaign", metavar="NAME", help="the campaign (default: $STRAXFLOW_CAMPAIGN, or online)")
    return options


def _config_files_apart(argv: Sequence[str]) -> list[str]:
    """`--configfile A B status` as snakemake takes it, without the option swallowing the command or a run."""
    words: list[str] = []
    taking = False
    for word in argv:
        if taking and word.endswith(_CONFIG_ENDINGS) and words[-1] != "--configfile":
            words.append("--configfile")
        elif words[-1:] != ["--configfile"]:
            taking = False
        if word in ("--configfile", "--configfiles"):
            taking, word = True, "--configfile"
        words.append(word)
    return words
