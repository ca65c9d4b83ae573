"""`straxflow switch`: turn automatic work on and off for everybody."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from straxflow import actions
from straxflow.cli.changes import one_line
from straxflow.cli.site import open_site
from straxflow.rundb.client import connect
from straxflow.rundb.switch import read_switch, set_switch

DESCRIPTION = (
    "Turns automatic work on or off for everybody who uses this run database (rundb.switch says which document does\n"
    "it). While it is off no run is claimed; what is being worked on is finished, and runs that a person names\n"
    "are still worked on. Exit code of `status`: 0 if it is on, 1 if it is off."
)
EXAMPLES = (
    "straxflow --profile stoomboot switch off --reason 'network maintenance until noon'",
    "straxflow --profile stoomboot switch status",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("position", choices=("on", "off", "status"), help="what to do")
    parser.add_argument("-n", "--dry-run", action="store_true", help="only say what would be done")
    parser.add_argument("--reason", metavar="TEXT", help="why; shown to all who find it off")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Turn the switch, or say how it stands."""
    site = open_site(arguments)
    reason = one_line(arguments.reason, "--reason")
    turns = arguments.position != "status"
    with connect(site.config) as db:
        switch = read_switch(db, site.config)
        if turns and not arguments.dry_run:
            switch = set_switch(db, site.config, arguments.position, reason)
            actions.record(db, site.config, site.campaign, f"switch {arguments.position}", [], reason)
    if arguments.json:
        print(json.dumps(asdict(switch), indent=1, default=str))
    elif turns and arguments.dry_run:
        print(f"would turn {site.config.rundb.switch.name} {arguments.position}; now: {switch.text}")
    else:
        print(switch.text)
    return 0 if turns or switch.on else 1
