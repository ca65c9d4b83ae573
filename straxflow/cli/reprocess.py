"""`straxflow reprocess`: make products of many runs anew, in a campaign of their own."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import yaml

from straxflow import actions
from straxflow.campaigns import Campaign, read, write
from straxflow.cli import confirm, indexes
from straxflow.cli.changes import give_all, tell
from straxflow.cli.site import Site, open_site, source_of
from straxflow.config import Config
from straxflow.errors import UsageError
from straxflow.extent import measure
from straxflow.folders import init_folders, marker_site
from straxflow.fsio import check_marker
from straxflow.goals import product_of
from straxflow.receipts import State, now
from straxflow.rundb.chosen import Chosen, choose
from straxflow.rundb.client import RunDb, connect
from straxflow.rundb.orders import Orders, Outcome
from straxflow.rundb.reprocess import CANCELLED, cancel, of_campaign, pause, progress, queue, resume
from straxflow.rundb.rundoc import ONLINE
from straxflow.runlist import parse_runs

DESCRIPTION = (
    "Makes products of many runs anew in a campaign of their own: its receipts stand in a state folder of its own,\n"
    "its states under straxflow.NAME in the run documents, and what other campaigns made stays as it is. What is not\n"
    "made anew is taken from another campaign's stored products, so live data are not needed. Runs whose source or\n"
    "whose corrections are missing wait, and say so. The runs are queued here; `straxflow --campaign NAME watch` (or\n"
    "plain snakemake, with STRAXFLOW_CAMPAIGN=NAME) works on them. More runs may be added at any time."
)
EXAMPLES = (
    "straxflow --profile stoomboot reprocess --campaign v5 --runs 900-950 --targets peaks events --corrections v5",
    "straxflow --profile stoomboot --campaign v5 watch --once",
    "straxflow --profile stoomboot reprocess --campaign v5 --status",
    "straxflow --profile stoomboot reprocess --campaign v5 --pause --reason 'gains are wrong'",
)
CONTROLS: dict[str, tuple[str, Callable[[Orders, Chosen], Outcome]]] = {
    "pause": ("nothing more of it is begun; what is being worked on is finished", pause),
    "resume": ("go on after --pause", resume),
    "cancel": ("call off what is not done; what was made stays", cancel),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--runs", nargs="+", metavar="RUN", help="932, 900-950, @FILE, or names")
    parser.add_argument("--targets", nargs="+", metavar="TARGET", help="products or data types that are made anew")
    parser.add_argument("--from", dest="source", metavar="CAMPAIGN", help="whose stored products (default: online)")
    parser.add_argument(
        "--corrections", metavar="VERSION", help="version of the corrections (see corrections: in the config)"
    )
    parser.add_argument(
        "--set", dest="options", metavar="OPTION=VALUE", action="append", default=[], help="a strax option, as YAML"
    )
    control = parser.add_mutually_exclusive_group()
    control.add_argument("--status", action="store_true", help="how far it is")
    for name, (text, _) in CONTROLS.items():
        control.add_argument(f"--{name}", action="store_true", help=text)
    confirm.options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Queue runs, or control or show a campaign."""
    site = open_site(arguments)
    if site.campaign == ONLINE:
        raise UsageError("give the campaign a name: --campaign NAME; `online` is what comes in by itself")
    begun = read(site.config.folders.state, site.campaign)
    control = next((name for name in CONTROLS if getattr(arguments, name)), None)
    if (control or arguments.status) and begun is None:
        raise UsageError(f"there is no campaign {site.campaign} of reprocess at this site")
    if begun and arguments.status:
        return _status(arguments, site, begun)
    if control:
        return _control(arguments, site, control)
    return _queue(arguments, site, begun)


def _queue(arguments: argparse.Namespace, site: Site, begun: Campaign | None) -> int:
    base = replace(source_of(arguments), campaign=None).load()
    if not arguments.runs:
        raise UsageError("name the runs: --runs")
    campaign = _campaign(arguments, site, base, begun)
    source = State(base.folders.state / campaign.source)
    check_marker(source.folder, "state", marker_site(base, "state", source))
    with connect(base) as db:
        chosen, problems = choose(db, base, parse_runs(arguments.runs, base))
        wanted = [
            one for one in chosen if set(base.products_for(str(one.document.get("mode")))) & set(campaign.products)
        ]
        if len(wanted) < len(chosen):
            print(f"{len(chosen) - len(wanted)} runs left out: nothing of this is made in their mode", file=sys.stderr)
        extent = measure(base, source, [one.id for one in wanted], campaign.products)
        confirm.confirm(arguments, f"reprocess, {campaign}", extent)
        if begun is None and wanted and not arguments.dry_run:
            init_folders(base, site.state)
            write(site.state, campaign)
            for keys in indexes.missing(db, site.campaign, site.config.states):
                indexes.create(db, keys)
        outcomes = give_all(db, site, arguments, f"reprocess ({campaign})", queue, wanted)
    tell(
        arguments,
        site,
        outcomes,
        problems,
        {"definition": campaign.model_dump(mode="json"), "extent": extent.as_json()},
    )
    if not arguments.json:
        print(f"{campaign}; {extent}")
        if any(outcome.result == "changed" for outcome in outcomes) and not arguments.dry_run:
            print(f"to work on them: straxflow --profile {site.profile} --campaign {site.campaign} watch --once")
    return 1 if problems or any(outcome.result == "refused" for outcome in outcomes) else 0


def _campaign(arguments: argparse.Namespace, site: Site, base: Config, begun: Campaign | None) -> Campaign:
    """The campaign as the options describe it; for one that is begun they may only repeat what it is.

    Raises:
        UsageError: if it is begun as something else, or not described.
    """
    if begun and not (arguments.targets or arguments.source or arguments.corrections or arguments.options):
        return begun
    if not arguments.targets:
        raise UsageError("say what is to be made anew: --targets")
    asked = {product_of(base, name) for name in arguments.targets}
    campaign = Campaign(
        name=site.campaign,
        source=arguments.source or ONLINE,
        products=[name for name in base.products if name in asked],
        corrections=arguments.corrections,
        config=dict(_option(text) for text in arguments.options),
        by=actions.user_name(),
        made=now(),
    )
    if campaign.source == campaign.name:
        raise UsageError("--from: a campaign cannot be made from itself")
    if begun is None:
        return campaign
    if not begun.same_work(campaign):
        raise UsageError(f"there is a campaign of this name already, which is another: {begun}; take another name")
    return begun


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"--set {text!r}: expected OPTION=VALUE")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UsageError(f"--set {text!r}: the value is no YAML: {error}") from None


def _control(arguments: argparse.Namespace, site: Site, control: str) -> int:
    if arguments.targets or arguments.source or arguments.corrections or arguments.options:
        raise UsageError(f"--{control} takes no description of the campaign")
    with connect(site.config) as db:
        chosen, problems = _members(arguments, site, db)
        # that it takes all of them is no surprise here, but calling off is not easily undone
        if control == "cancel":
            extent = measure(site.config, site.state, [one.id for one in chosen])
            confirm.confirm(arguments, f"cancel campaign {site.campaign}", extent)
        outcomes = give_all(db, site, arguments, f"reprocess --{control}", CONTROLS[control][1], chosen)
    at_work = [outcome for outcome in outcomes if outcome.result == "refused"]
    tell(arguments, site, [outcome for outcome in outcomes if outcome not in at_work], problems)
    if at_work and not arguments.json:
        print(f"{len(at_work)} runs are being worked on and will be finished: {', '.join(o.run for o in at_work[:10])}")
    return 1 if problems else 0


def _members(arguments: argparse.Namespace, site: Site, db: RunDb) -> tuple[list[Chosen], list[str]]:
    if not arguments.runs:
        return of_campaign(db, site.config, site.campaign)
    chosen, problems = choose(db, site.config, parse_runs(arguments.runs, site.config))
    return [one for one in chosen if one.status(site.campaign, site.config) is not None], problems


def _status(arguments: argparse.Namespace, site: Site, campaign: Campaign) -> int:
    with connect(site.config) as db:
        runs, problems = _members(arguments, site, db)
        found = progress(runs, site.config, site.campaign, db.now())
    if arguments.json:
        told = {"definition": campaign.model_dump(mode="json"), **asdict(found), "total": found.total}
        print(json.dumps({**told, "problems": list(problems)}, indent=1))
        return 0
    print(f"{campaign}; begun by {campaign.by} on {campaign.made:%F %T} UTC")
    states = [f"{n} {state}" for state, n in sorted(found.states.items()) if state not in ("done", CANCELLED)]
    share = f" ({100 * found.done / found.total:.0f} %)" if found.total else ""
    print(f"{found.done} of {found.total} runs done{share}{': ' + ', '.join(states) if states else ''}", end="")
    print(f"; {found.states[CANCELLED]} cancelled" if CANCELLED in found.states else "")
    if found.left_s is not None and found.done < found.total:
        print(f"about {found.left_s / 3600:.1f} h left at the speed of the last runs")
    _reasons(found.reasons)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 0


def _reasons(reasons: Sequence[tuple[str, int]]) -> None:
    for reason, times in reasons:
        print(f"  {times} x {reason}")
