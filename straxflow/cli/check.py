"""`straxflow check`: every part that the workflow needs, tried; one line each."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict

from rich.console import Console
from rich.text import Text

from straxflow.cli import check_disks, check_permissions, check_programs, check_rundb, check_strax
from straxflow.cli.site import Site, open_site
from straxflow.reports.verdict import Check, Verdict, ok, reach

_COLOURS = {"ok": "green", "warning": "yellow", "FAILED": "bold red"}

DESCRIPTION = (
    "Tries every part that the workflow needs, and says of each: ok, warning or FAILED, and what to do.\n"
    "Changes nothing. Exit code 1 if anything FAILED."
)
EXAMPLES = ("straxflow --profile stoomboot check",)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--json", action="store_true", help="the verdicts as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the verdicts; 1 if anything FAILED."""
    site = open_site(arguments)
    verdicts = []
    for verdict in reach(checks(site)):
        verdicts.append(verdict)
        if not arguments.json:
            show(verdict)
    good = all(v.level != "FAILED" for v in verdicts)
    if arguments.json:
        about = {"site": site.config.site, "campaign": site.campaign, "ok": good}
        print(json.dumps({**about, "checks": [asdict(v) for v in verdicts]}, indent=1))
    return 0 if good else 1


def checks(site: Site) -> list[Check]:
    """All checks that this site's steps call for."""
    return [
        Check("config", lambda: [_config(site)]),
        *check_disks.checks(site),
        *check_permissions.checks(site),
        *check_rundb.checks(site),
        *check_programs.checks(site),
        *check_strax.checks(site),
    ]


def _config(site: Site) -> Verdict:
    config = site.config
    steps = " ".join(config.steps)
    products = ", ".join(config.products)
    return ok("config", f"{site.origin}: site {config.site}, campaign {site.campaign}; products {products}; {steps}")


def show(verdict: Verdict) -> None:
    """One line, with what to do below it."""
    console = Console(highlight=False, soft_wrap=True)
    line = Text()
    line.append(f"{verdict.level:<8}", style=_COLOURS[verdict.level])
    line.append(f"{verdict.part:<16}", style="bold")
    line.append(_indented(verdict.text.splitlines()))
    if verdict.remedy:
        line.append(_indented(["", f"-> {verdict.remedy}"]))
    console.print(line)
    sys.stdout.flush()


def _indented(lines: Iterable[str]) -> str:
    return ("\n" + " " * 24).join(lines)
