"""`straxflow status`: the runs by state, then run by run."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from straxflow.cli.output import Table, add, coloured, emit, one_line, size, table
from straxflow.cli.site import Site, open_site
from straxflow.config import LIVE
from straxflow.folders import marker_site
from straxflow.fsio import check_marker
from straxflow.reports.database import MOST, Seen, look
from straxflow.reports.standings import ENDED, RunStatus, Standings, as_json
from straxflow.runlist import parse_runs

NEWEST = 30

DESCRIPTION = (
    "Shows how the runs stand, by the receipts and attempts in the state folder; the run database, if it answers,\n"
    "adds who works on a run and how many runs are pending. Exit code 1 only if a named run is not known."
)
EXAMPLES = ("straxflow --profile stoomboot status 003012 003013",)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="only these (932, 000932, 900-950, @FILE), with all that was tried on them",
    )
    parser.add_argument("--all", action="store_true", help="all runs in the table, not just the newest 30")
    parser.add_argument("--json", action="store_true", help="everything as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print how the runs stand."""
    site = open_site(arguments)
    # an unmounted disk must not look like a site without runs
    check_marker(site.state.folder, "state", marker_site(site.config, "state", site.state))
    named = _named(site, arguments.runs)
    here = set(site.state.all_runs())
    seen = look(site.config, site.campaign, [name for name in named if name not in here])
    standings = Standings(site.config, site.state, seen.holders)
    briefs = [standings.brief(name) for name in (named or here) if name in here]
    briefs.sort(key=lambda status: (status.number, status.run), reverse=True)
    shown = briefs if named or arguments.all or arguments.json else _chosen(briefs)
    full = [
        replace(
            brief,
            products=standings.products(brief.run, brief.mode),
            attempts=standings.attempts(brief.run) if named else (),
        )
        for brief in shown
    ]
    unknown = [name for name in named if name not in here]
    full += [_not_here(name, seen) for name in unknown]
    waiting = [name for name in seen.pending if name not in here]
    if arguments.json:
        print(json.dumps(_json(site, briefs, full, seen, waiting), indent=1))
    else:
        _print(site, briefs, full, seen, waiting, bool(named))
    return 1 if any(name not in seen.elsewhere for name in unknown) else 0


def _named(site: Site, words: Sequence[str]) -> list[str]:
    """Ids of the runs that the words name: of ranges those that are here, of single ones all."""
    if not words:
        return []
    wanted = parse_runs(words, site.config)
    return list(dict.fromkeys([*wanted.single(), *wanted.ids(site.config, site.state)]))


def _chosen(briefs: Sequence[RunStatus]) -> list[RunStatus]:
    """The newest, and those older ones that a person should see."""
    older = [b for b in briefs[NEWEST:] if b.state not in (*ENDED, "pending")]
    return [*briefs[:NEWEST], *older[:NEWEST]]


def _not_here(run: str, seen: Seen) -> RunStatus:
    if seen.problem:
        return RunStatus(run, "not here", reason="and the run database does not answer")
    if run not in seen.elsewhere:
        return RunStatus(run, "unknown", reason="neither here nor in the run database")
    status = seen.elsewhere[run]
    return RunStatus(run, "not here", reason=f"in the run database{f' as {status}' if status else ''}")


def _json(
    site: Site, briefs: Sequence[RunStatus], full: Sequence[RunStatus], seen: Seen, waiting: Sequence[str]
) -> dict[str, object]:
    return {
        "site": site.config.site,
        "campaign": site.campaign,
        "states": dict(Counter(b.state for b in briefs)),
        "rundb": {
            "problem": seen.problem,
            "pending": len(seen.pending),
            "pending_not_here": list(waiting),
            "left_to_a_person": list(seen.left),
        },
        "runs": [as_json(status) for status in full],
    }


def _print(
    site: Site,
    briefs: Sequence[RunStatus],
    full: Sequence[RunStatus],
    seen: Seen,
    waiting: Sequence[str],
    named: bool,
) -> None:
    emit(_headline(site, briefs, seen, waiting))
    if full:
        emit(_table(full))
    if not named and len(full) < len(briefs):
        emit(f"{len(briefs) - len(full)} older runs are not shown (--all, --json)")
    if named:
        for status in full:
            emit(*_history(status))


def _headline(site: Site, briefs: Sequence[RunStatus], seen: Seen, waiting: Sequence[str]) -> str:
    counts = Counter(b.state for b in briefs)
    told = ", ".join(f"{count} {state}" for state, count in counts.most_common()) or "no runs yet"
    lines = [f"site {site.config.site}, campaign {site.campaign}: {told}"]
    if seen.problem:
        lines.append(f"told without the run database: {seen.problem}")
    else:
        more = " or more" if len(seen.pending) >= MOST else ""
        lines.append(f"run database: {len(seen.pending)}{more} pending, {len(waiting)} of them not yet here")
    if seen.left:
        named = ", ".join(seen.left[:10]) + (", ..." if len(seen.left) > 10 else "")
        lines.append(f"failed and not tried again by themselves: {named} (straxflow show RUN, straxflow retry RUN)")
    return "\n".join(lines)


def _table(statuses: Iterable[RunStatus]) -> Table:
    made = table("run", "~mode", "state", ">live", ">made", "~products", "~notes")
    for status in statuses:
        live = sum(p.bytes for p in status.products if p.name == LIVE)
        stored = sum(p.bytes for p in status.products if p.name != LIVE)
        add(
            made, status.run, status.mode, coloured(status.state), size(live), size(stored),
            _reached(status), "; ".join(_notes(status)),
        )  # fmt: skip
    return made


def _reached(status: RunStatus) -> str:
    """Products by the furthest step they have reached."""
    groups: dict[str, list[str]] = {}
    for product in status.products:
        groups.setdefault(product.reached or "not begun", []).append(product.name)
    return "; ".join(f"{', '.join(names)}: {reached}" for reached, names in groups.items())


def _notes(status: RunStatus) -> Iterable[str]:
    if status.reason and status.state != "done":
        yield one_line(status.reason)
    if status.log:
        yield f"log {status.log}"
    if status.holder and status.state not in ENDED:
        yield f"claimed by {status.holder}"
    for product in status.products:
        yield from product.notes


def _history(status: RunStatus) -> Iterable[str]:
    if status.attempts:
        yield f"\nrun {status.run}, attempts (UTC):"
    for attempt in status.attempts:
        took = f"{attempt.seconds:.1f} s" if attempt.seconds is not None else ""
        where = f"{attempt.owner.get('host')}{f' job {attempt.job_id}' if attempt.job_id else ''}"
        line = (
            f"  {attempt.started:%F %T}  {attempt.product} {attempt.step}: {attempt.outcome or 'open'}  {took}  {where}"
        )
        yield f"{line}\n      {attempt.reason}\n      log {attempt.log}" if attempt.reason else line
