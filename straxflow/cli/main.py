"""The command line: options, commands, exit codes. Each command is imported when it is called."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

import straxflow
from straxflow.errors import ConfigError, StraxflowError

_EPILOG = """\
exit codes: 0 good; 1 a problem found, or failed; 2 the command line or the configuration is wrong

examples:
  straxflow --profile stoomboot init            make the folders of the site, once
  straxflow --profile stoomboot check           is everything in order?
  straxflow --profile stoomboot status          how every run stands
  straxflow --profile stoomboot status 003012   what became of this run
"""
_COMMANDS = ("init", "check", "status", "versions", "config")
_CONFIG_ENDINGS = (".yaml", ".yml", ".json")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit code."""
    arguments = _parser().parse_args(_config_files_apart(sys.argv[1:] if argv is None else argv))
    if "campaign" in arguments:
        os.environ["STRAXFLOW_CAMPAIGN"] = arguments.campaign
    command = importlib.import_module(f"straxflow.cli.{arguments.command}")
    try:
        code: int = command.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # output into `head` or a closed pager; what the buffer still holds must not fail again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except StraxflowError as error:
        print(f"straxflow {arguments.command}: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
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

    def command(name: str, summary: str, text: str, example: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=text,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=[site],
        )

    init = command(
        "init",
        "make the site's folders, their identity markers and the database's indexes",
        "Makes what is missing: the folders of the site and the store with their identity markers, and the indexes\n"
        "of the run database. What is there already stays as it is, so it may be called again at any time.",
        "straxflow --profile stoomboot init --dry-run",
    )
    init.add_argument("-n", "--dry-run", action="store_true", help="only say what would be made")
    check = command(
        "check",
        "is everything in order? One line each",
        "Tries every part that the workflow needs, and says of each: ok, warning or FAILED, and what to do.\n"
        "Changes nothing. Exit code 1 if anything FAILED.",
        "straxflow --profile stoomboot check",
    )
    check.add_argument("--json", action="store_true", help="the verdicts as JSON")
    status = command(
        "status",
        "how every run stands, what failed and why",
        "Shows how the runs stand, by the receipts and attempts in the state folder; the run database, if it answers,\n"
        "adds who works on a run and how many runs are pending. Exit code 1 only if a named run is not known.",
        "straxflow --profile stoomboot status 003012 003013",
    )
    status.add_argument("runs", nargs="*", metavar="RUN", help="only these runs, with all that was tried on them")
    status.add_argument("--all", action="store_true", help="all runs in the table, not just the newest 30")
    status.add_argument("--json", action="store_true", help="everything as JSON")
    versions = command(
        "versions",
        "versions, paths and git state of the software",
        "Shows version, path and git state (branch, commit, changes) of the packages that make the data, in\n"
        "straxflow's own Python and in the site's Python with strax, where that is another.",
        "straxflow --profile stoomboot versions amstrax strax numpy",
    )
    versions.add_argument("packages", nargs="*", metavar="PACKAGE", help="import names; by default what matters here")
    versions.add_argument("--json", action="store_true", help="as JSON")
    config = command(
        "config",
        "the configuration in effect, its reference, its schema",
        "Shows the configuration in effect, or what can be configured.",
        "straxflow config --doc",
    )
    what = config.add_mutually_exclusive_group()
    what.add_argument("--show", action="store_true", help="the configuration in effect, as YAML (the default)")
    what.add_argument("--doc", action="store_true", help="the reference of all keys, in Markdown")
    what.add_argument("--schema", action="store_true", help="the JSON schema, for editors")
    return parser


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
