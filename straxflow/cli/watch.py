"""`straxflow watch`: keeps a site going without a person; the loop is in straxflow/watch."""

from __future__ import annotations

import argparse
import math
from typing import Any

from straxflow.batch import campaign_name
from straxflow.cli.site import source_of
from straxflow.config.load import ROOT
from straxflow.config.profile import NO_PROFILE
from straxflow.errors import ConfigError
from straxflow.invocation import Invocation
from straxflow.receipts import State
from straxflow.rundb.client import connect
from straxflow.watch.due import look_for_work
from straxflow.watch.invocations import command
from straxflow.watch.lease import holder_of, in_words
from straxflow.watch.loop import Watcher
from straxflow.watch.reading import Reading
from straxflow.watch.systemd import unit
from straxflow.watch.words import log, log_to_terminal

DESCRIPTION = (
    "Keeps a site going without a person: starts snakemake invocations when runs are due, one after another and side\n"
    "by side, replaces those that hang, and goes on after any crash. SIGTERM or Ctrl-C: nothing new is begun, and it\n"
    "ends when the running jobs have; once more: it stops them. Only one watcher of a site's campaign acts; further\n"
    "ones wait and take over. It may be killed and started again at any time: docs/unattended.md."
)
EXAMPLES = (
    "straxflow --profile stoomboot watch",
    "straxflow --profile stoomboot watch --once        work on what is due, then end: for cron",
    "straxflow --profile stoomboot watch --dry-run     what would it start now?",
    "straxflow --profile stoomboot watch --systemd-unit > ~/.config/systemd/user/straxflow.service",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--once", action="store_true", help="end when nothing is due any more")
    parser.add_argument("-n", "--dry-run", action="store_true", help="only say what it would start now")
    parser.add_argument(
        "--poll", type=float, metavar="S", help="ask the run database every S seconds (default: watch.poll_s)"
    )
    parser.add_argument(
        "--max-invocations", type=int, metavar="N", help="invocations at once (default: watch.max_invocations)"
    )
    parser.add_argument("--systemd-unit", action="store_true", help="print a unit for systemd with the paths of here")


def run(arguments: argparse.Namespace) -> int:
    """Watch; 1 if it was stopped at once, or with --once if an invocation failed."""
    source = source_of(arguments)
    if source.profile == NO_PROFILE:
        raise ConfigError("watch: it starts snakemake with a profile; name one with --profile")
    reading = Reading(source, _changes(arguments), log.warning)
    campaign = campaign_name()
    if arguments.systemd_unit:
        print(unit(reading.config.site, source, campaign), end="")
        return 0
    if arguments.dry_run:
        return _preview(reading, campaign)
    log_to_terminal()
    return Watcher(reading, campaign, once=arguments.once).run()


def _changes(arguments: argparse.Namespace) -> dict[str, Any]:
    given = {"poll_s": arguments.poll, "max_invocations": arguments.max_invocations}
    for name, value in given.items():
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"--{name.removesuffix('_s').replace('_', '-')} {value:g}: expected a positive number")
    return {name: value for name, value in given.items() if value is not None}


def _preview(reading: Reading, campaign: str) -> int:
    config = reading.config
    state = State(config.folders.state / campaign)
    with connect(config) as db:
        lease, held = holder_of(db, config, campaign)
        due = look_for_work(db, config, campaign)
    if lease and held:
        print(f"another watcher acts: {in_words(lease)}; this one would wait")
    if due.held:
        print(f"nothing would be started: {due.held}")
        return 0
    runs = Invocation(config, state, campaign, "preview").preview(print) if due.run else []
    if not runs:
        print("nothing is due: nothing would be started now")
        return 0
    print(f"would run in {ROOT}: {' '.join(command(reading.source.profile))}")
    print(f"which would claim {len(runs)} runs: {', '.join(one.run.id for one in runs)}")
    return 0
