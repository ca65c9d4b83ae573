"""`straxflow process`: make products of named runs now."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from straxflow import actions
from straxflow.cli import confirm
from straxflow.cli.changes import run_words
from straxflow.cli.private import run_private
from straxflow.cli.site import Site, open_site
from straxflow.cli.start import snakemake
from straxflow.errors import UsageError
from straxflow.extent import measure
from straxflow.folders import open_store
from straxflow.goals import goals, product_of
from straxflow.receipts import Stored
from straxflow.rundb.chosen import Chosen, choose
from straxflow.rundb.client import connect
from straxflow.runlist import parse_runs

DESCRIPTION = (
    "Makes products of the named runs and all that these need, whatever the runs' states and tags, by snakemake with\n"
    "this very profile: the same jobs as always, claimed like any other. What is stored already is said, with exit\n"
    "code 0. A data type stands for the product that holds it.\n"
    "With --private the products are made in this very process, from live, staged or stored data of this site, into a\n"
    "folder of one's own: for tests of new code, or of other settings."
)
EXAMPLES = (
    "straxflow --profile local process 932 --target events",
    "straxflow --profile stoomboot process 900-950 --target peaks --target events -n",
    "straxflow --profile stoomboot process 932 --target events --private ~/test",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    run_words(parser)
    parser.add_argument(
        "-t",
        "--target",
        dest="targets",
        metavar="TARGET",
        action="append",
        default=[],
        help="product or data type, may be given again (default: all that this site makes of a run)",
    )
    parser.add_argument(
        "--private",
        metavar="FOLDER",
        help="make them here and now in a folder of yours, without snakemake, claim or database write",
    )
    parser.add_argument(
        "--from-scratch", action="store_true", help="with --private: make them even if the same data are stored"
    )
    confirm.options(parser)


@dataclass(frozen=True)
class Plan:
    """What is to be done for one run."""

    run: str
    mode: str
    targets: list[str]
    stored: list[str]
    missing: list[str]


def run(arguments: argparse.Namespace) -> int:
    """Start snakemake for what is not stored yet."""
    site = open_site(arguments)
    products = list(dict.fromkeys(product_of(site.config, name) for name in _targets(arguments.targets)))
    if arguments.private:
        return run_private(arguments, site, products)
    if arguments.from_scratch:
        raise UsageError("--from-scratch is for --private; to make stored data again: straxflow redo")
    named = parse_runs(arguments.runs, site.config)
    with connect(site.config) as db:
        chosen, problems = choose(db, site.config, named)
        plans = _plans(site, chosen, products)
        wanted = [target for plan in plans for target in plan.targets]
        todo = [plan.run for plan in plans if plan.targets]
        if len(todo) > confirm.ASK_ABOVE:
            confirm.confirm(arguments, "process", measure(site.config, site.state, todo, products or None))
        if todo and not arguments.dry_run:
            doing = f"process {' '.join(products)}".strip()
            actions.record(db, site.config, site.campaign, doing, todo, arguments.reason)
    _tell(arguments, plans, problems)
    lost = any(plan.missing for plan in plans)
    if wanted and not (arguments.json and arguments.dry_run):
        snakemake(arguments, site, wanted, arguments.dry_run)
    # of a range some runs may have nothing of it; if none has, it was not what was meant
    nothing = not any(plan.targets or plan.stored for plan in plans)
    return 1 if problems or lost or nothing else 0


def _targets(words: Sequence[str]) -> list[str]:
    return [name for word in words for name in word.split(",") if name]


def _plans(site: Site, chosen: Sequence[Chosen], products: Sequence[str]) -> list[Plan]:
    names: set[str] | None = None
    plans = []
    for run in chosen:
        mode = str(run.document.get("mode"))
        made = [p for p in (products or site.config.products_for(mode)) if p in site.config.products_for(mode)]
        stored, gone = [], []
        for product in made:
            receipt = site.state.find(run.id, product, Stored)
            if receipt is None:
                continue
            names = set(open_store(site.config).names()) if names is None else names
            stored.append(product)
            gone += [f"{product} ({folder})" for folder in receipt.folders if folder not in names]
        targets = goals(site.config, run.id, mode, products)
        left = [target for target in targets if not (site.state.folder / target).is_file()]
        plans.append(Plan(run.id, mode, left, stored, gone))
    return plans


def _tell(arguments: argparse.Namespace, plans: Sequence[Plan], problems: Sequence[str]) -> None:
    if arguments.json:
        print(json.dumps({"runs": [asdict(plan) for plan in plans], "problems": list(problems)}, indent=1))
        return
    for plan in plans:
        if plan.missing:
            print(
                f"run {plan.run}: by its receipts it is stored, but not in the store any more: "
                f"{', '.join(plan.missing)}; straxflow redo {plan.run} --from process makes it again",
                file=sys.stderr,
            )
        elif not plan.targets and plan.stored:
            print(f"run {plan.run}: stored already: {', '.join(plan.stored)}")
        elif not plan.targets:
            print(f"run {plan.run}: nothing of this is made of it (mode {plan.mode})")
    for problem in problems:
        print(problem, file=sys.stderr)
