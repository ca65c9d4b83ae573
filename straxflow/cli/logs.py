"""`straxflow logs`: what the steps of a run said."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from straxflow import attempts
from straxflow.attempts import Attempt
from straxflow.cli.output import clock, emit, emit_json
from straxflow.cli.site import Site, open_site
from straxflow.config import LIVE
from straxflow.errors import UsageError
from straxflow.folders import marker_site
from straxflow.fsio import check_marker
from straxflow.reports.database import run_named
from straxflow.reports.logs import LogFile, follow, log_files, tail

DESCRIPTION = (
    "Shows the ends of the logs of a run's steps, the one written last at the end: of the last attempt, or of all.\n"
    "Exit code 1 if there is no such log."
)
EXAMPLES = (
    "straxflow --profile stoomboot logs 3012",
    "straxflow --profile stoomboot logs 3012 events --step process -n 0",
    "straxflow --profile stoomboot logs 3012 --follow",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("run_id", metavar="RUN", help="a run: 932 or 000932")
    parser.add_argument("product", nargs="?", metavar="PRODUCT", help="only of this product (live: the transfer)")
    parser.add_argument("--step", metavar="STEP", help="only of this step")
    parser.add_argument("--all", action="store_true", help="of all attempts, not just the last one")
    parser.add_argument("-n", "--lines", metavar="N", type=int, default=20, help="last lines of each (0: all)")
    parser.add_argument("-f", "--follow", action="store_true", help="and what comes, until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the ends of the logs."""
    site = open_site(arguments)
    if arguments.product not in (None, LIVE, *site.config.products):
        raise UsageError(f"no product {arguments.product!r} (known: {', '.join([LIVE, *site.config.products])})")
    if arguments.follow and arguments.json:
        raise UsageError("--follow and --json do not go together")
    check_marker(site.state.folder, "state", marker_site(site.config, "state", site.state))
    run_id = run_named(site.config, site.state, arguments.run_id)
    wanted = (run_id, arguments.product, arguments.step)
    files = log_files(site.state, *wanted)
    tried = [file.attempt for file in attempts.all_of(site.state, run_id)]
    most = arguments.lines or None
    if arguments.json:
        emit_json([_as_json(file, tried, tail(file.path, most, not arguments.all)) for file in files])
    for file in [] if arguments.json else files:
        emit(_title(site, file, tried), *tail(file.path, most, not arguments.all), "")
    if arguments.follow:
        _follow(site, wanted, files, tried)
    if not files and not arguments.json:
        emit(f"run {run_id}: there is no {'such ' if any(wanted[1:]) else ''}log in {site.state.folder / 'logs'}")
    return 0 if files else 1


def _follow(
    site: Site, wanted: tuple[str, str | None, str | None], shown: Sequence[LogFile], tried: Sequence[Attempt]
) -> None:
    last = None
    sys.stdout.flush()
    for file, lines in follow(site.state, *wanted, shown):
        if file.path != last:
            last = file.path
            emit(_title(site, file, tried))
        emit(*lines)
        sys.stdout.flush()


def _of(file: LogFile, tried: Sequence[Attempt]) -> list[Attempt]:
    return [a for a in tried if (a.product, a.step) == (file.product, file.step)]


def _title(site: Site, file: LogFile, tried: Sequence[Attempt]) -> str:
    mine = _of(file, tried)
    ended = ""
    if mine:
        last = mine[-1]
        count = f"{len(mine)} attempts, the last " if len(mine) > 1 else ""
        ended = f", {count}{last.outcome or 'open'}, began {clock(last.started)}"
    return f"==> {file.step} of {file.product}{ended}: {file.path} <=="


def _as_json(file: LogFile, tried: Sequence[Attempt], lines: Sequence[str]) -> dict[str, object]:
    return {
        "product": file.product,
        "step": file.step,
        "path": file.path,
        "changed": file.changed,
        "attempts": [a.model_dump(mode="json") for a in _of(file, tried)],
        "lines": list(lines),
    }
