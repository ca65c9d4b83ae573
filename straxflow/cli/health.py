"""`straxflow health`: one line and an exit code for a monitor."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any

from straxflow.cli.output import emit_json, one_line
from straxflow.cli.site import open_site
from straxflow.cli.times import length_s
from straxflow.config.sections.health import Health
from straxflow.errors import StraxflowError, UsageError
from straxflow.reports.health import PATIENCE_S, examine
from straxflow.reports.verdict import Level, Measure, Verdict

ORDER: tuple[Level, ...] = ("ok", "warning", "FAILED")
WORDS = ("OK", "WARNING", "CRITICAL")
"""The same as a monitor names them; their places are its exit codes."""
UNKNOWN = 3

DESCRIPTION = (
    "Says in one line whether all goes well: the watcher, the run database (through its tunnel), the switch, the\n"
    "oldest pending run, runs left to a person, the disks, and whether new runs come. Limits stand in `health:` of\n"
    "the configuration; options go over them, as WARNING:CRITICAL (either may be left out).\n\n"
    "Its exit codes are those of Nagios' plug-ins: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN (it could not look)."
)
EXAMPLES = (
    "straxflow --profile stoomboot health",
    "straxflow --profile stoomboot health --pending 6h:24h --free 10:3 --quiet 2h:",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--pending", metavar="W:C", help="a run has been pending for so long, e.g. 6h:24h")
    parser.add_argument("--quiet", metavar="W:C", help="no new run for so long, e.g. 2h:12h")
    parser.add_argument("--left", metavar="W:C", help="so many runs are left to a person, e.g. 1:20")
    parser.add_argument("--free", metavar="W:C", help="less than this is free on a disk, percent, e.g. 10:3")
    parser.add_argument("--watcher", metavar="LENGTH", help="the watcher is silent for so long; none: there is none")
    parser.add_argument(
        "--patience", metavar="S", type=float, default=PATIENCE_S, help=f"what takes longer hangs ({PATIENCE_S:g} s)"
    )
    parser.add_argument("--json", action="store_true", help="all signs, as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the line."""
    try:
        site = open_site(arguments)
        config = site.config.model_copy(update={"health": _limits(site.config.health, arguments)})
        if not 0 < arguments.patience < math.inf:
            raise UsageError(f"--patience {arguments.patience:g}: expected a positive number of seconds")
        verdicts = examine(config, site.state, site.campaign, arguments.patience)
    except StraxflowError as error:
        # a monitor takes 1 and 2 for something else
        print(f"UNKNOWN: straxflow: {one_line(str(error))}")
        return UNKNOWN
    worst = max((ORDER.index(verdict.level) for verdict in verdicts), default=0)
    if arguments.json:
        emit_json({"level": WORDS[worst], "signs": verdicts})
    else:
        print(f"{WORDS[worst]}: {_line(verdicts)}")
    return worst


def _line(verdicts: Sequence[Verdict]) -> str:
    """What is wrong first, then the rest, then the values for curves."""
    ordered = sorted(verdicts, key=lambda verdict: -ORDER.index(verdict.level))
    # | and line breaks have a meaning of their own for a monitor
    told = "; ".join(one_line(verdict.text).replace("|", "/") for verdict in ordered)
    curves = [_curve(v.part, v.measure) for v in verdicts if v.measure]
    return f"{told} | {' '.join(curves)}" if curves else told


def _curve(part: str, measure: Measure) -> str:
    # of what is free, less is worse
    below = ":" if measure.unit in ("%", "B") else ""
    limits = ["" if limit is None else f"{limit:g}{below}" for limit in (measure.warning, measure.critical)]
    return f"{part.replace(' ', '_')}={measure.value:.10g}{measure.unit};{';'.join(limits)}"


def _limits(limits: Health, arguments: argparse.Namespace) -> Health:
    """The limits of the configuration with those of the options over them."""

    def hours(text: str, option: str) -> float:
        return length_s(text, option) / 3600

    changes: dict[str, Any] = {}
    for option, read, names in (
        ("pending", hours, ("pending_warning_h", "pending_critical_h")),
        ("quiet", hours, ("quiet_warning_h", "quiet_critical_h")),
        ("left", _number, ("left_warning", "left_critical")),
        ("free", _number, ("free_warning_percent", "free_critical_percent")),
    ):
        given = getattr(arguments, option)
        if given is not None:
            texts = (*given.split(":", 1), "")[:2]
            nothing = 0.0 if option == "free" else None
            changes |= {
                name: read(text, f"--{option}") if text else nothing for name, text in zip(names, texts, strict=True)
            }
    if arguments.watcher:
        changes["watcher"] = arguments.watcher != "none"
        if changes["watcher"]:
            changes["watcher_silent_s"] = length_s(arguments.watcher, "--watcher")
    return limits.model_copy(update=changes)


def _number(text: str, option: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise UsageError(f"{option} {text}: expected a number")
    return found
