"""`straxflow redo`: do steps of runs again."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from straxflow import actions, redo
from straxflow.cli import confirm
from straxflow.cli.changes import one_line, run_words
from straxflow.cli.site import Site, open_site
from straxflow.cli.start import snakemake
from straxflow.config import LIVE, STEPS
from straxflow.errors import ClaimLost, RunDbError
from straxflow.extent import measure
from straxflow.goals import goals, product_of
from straxflow.hold import held
from straxflow.receipts import Registered
from straxflow.rundb.chosen import Chosen, choose
from straxflow.rundb.client import RunDb, connect
from straxflow.rundb.orders import Orders
from straxflow.runlist import parse_runs

DESCRIPTION = (
    "Does a step of the named runs again, and all that follow. Their receipts are moved into the run's history\n"
    "folder, kept, and snakemake makes them anew. A product whose making is done again is made from its source,\n"
    "even if it is stored: the same data are found to be the same, different data are laid beside those that stand,\n"
    "never over them."
)
EXAMPLES = (
    "straxflow --profile local redo 932 --from process --product events",
    "straxflow --profile stoomboot redo 900-950 --from checksum --no-run --reason 'new disk'",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    run_words(parser)
    parser.add_argument("--from", dest="step", metavar="STEP", choices=STEPS, required=True, help=", ".join(STEPS))
    parser.add_argument("--product", metavar="PRODUCT", help="only this product, and what is made from it")
    parser.add_argument("--no-run", action="store_true", help="leave the runs pending for the next invocation")
    confirm.options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Set receipts aside, then start snakemake."""
    site = open_site(arguments)
    arguments.reason = one_line(arguments.reason, "--reason")
    product = product_of(site.config, arguments.product) if arguments.product else None
    with connect(site.config) as db:
        chosen, problems = choose(db, site.config, parse_runs(arguments.runs, site.config))
        plans = {run.id: _receipts(site, run, arguments.step, product) for run in chosen}
        for name in [name for name, receipts in plans.items() if not receipts]:
            problems.append(f"run {name}: nothing of that has been done yet")
            del plans[name]
        if len(plans) > confirm.ASK_ABOVE:
            products = [product] if product else None
            confirm.confirm(arguments, "redo", measure(site.config, site.state, list(plans), products))
        done = []
        for one in chosen:
            if one.id not in plans:
                continue
            try:
                _set_aside(db, site, arguments, one, plans[one.id])
            except (RunDbError, ClaimLost) as error:
                problems.append(str(error))
                continue
            done.append(one)
        if done and not arguments.dry_run:
            doing = f"redo from {arguments.step}" + (f" of {product}" if product else "")
            actions.record(db, site.config, site.campaign, doing, [one.id for one in done], arguments.reason)
    _tell(arguments, site, {one.id: plans[one.id] for one in done}, problems)
    if done and not arguments.dry_run and not arguments.no_run:
        snakemake(arguments, site, [target for one in done for target in _targets(site, one, plans[one.id])])
    return 1 if problems else 0


def _receipts(site: Site, run: Chosen, step: str, product: str | None) -> list[Path]:
    receipts = redo.receipts_from(site.config, site.state, run.id, str(run.document.get("mode")), step, product)
    redo.check_possible(site.config, site.state, run.id, step, receipts)
    return receipts


def _targets(site: Site, run: Chosen, receipts: Sequence[Path]) -> list[str]:
    """What makes these receipts anew, and nothing else of the run."""
    mode, names = str(run.document.get("mode")), {path.parent.name for path in receipts}
    targets = [] if LIVE not in names else [f"runs/{run.id}/{LIVE}/{Registered.name}"]
    targets += goals(site.config, run.id, mode, sorted(names - {LIVE, run.id})) if names - {LIVE, run.id} else []
    released = site.state.released(run.id)
    return [*targets, *([f"runs/{run.id}/{released.name}"] if released in receipts else [])]


def _set_aside(db: RunDb, site: Site, arguments: argparse.Namespace, run: Chosen, receipts: Sequence[Path]) -> None:
    orders = Orders(db, site.config, site.campaign, reason=arguments.reason)
    if arguments.dry_run:
        if holder := orders.holder(run):
            raise RunDbError(f"run {run.id}: {holder}")
        return
    with held(site.config, site.state, site.campaign, [run.id]) as invocation:
        # first its state: whatever ends this process, the run is not taken for done
        orders.pending_while_held(run, invocation.batch, f"to be done again from {arguments.step}")
        order = {"by": orders.user, "reason": arguments.reason}
        redo.set_aside(site.state, run.id, arguments.step, list(receipts), order)


def _tell(arguments: argparse.Namespace, site: Site, done: dict[str, list[Path]], problems: Sequence[str]) -> None:
    named = {run: [str(p.relative_to(site.state.run(run))) for p in paths] for run, paths in done.items()}
    if arguments.json:
        told = {"dry_run": arguments.dry_run, "set_aside": named, "problems": list(problems)}
        print(json.dumps(told, indent=1))
        return
    for run, paths in named.items():
        print(f"run {run}: {'would be ' if arguments.dry_run else ''}set aside: {', '.join(paths)}")
    for problem in problems:
        print(problem, file=sys.stderr)
