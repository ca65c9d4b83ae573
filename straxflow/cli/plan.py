"""`straxflow plan`: what would be done for runs, and what it would take."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from straxflow.cli.output import Table, add, emit, emit_json, size, span, table
from straxflow.cli.site import Site, open_site
from straxflow.cli.times import FORMS, moment
from straxflow.errors import UsageError
from straxflow.folders import marker_site
from straxflow.fsio import check_marker
from straxflow.reports.costs import SAMPLE, Cost, costs_of_site
from straxflow.reports.database import ask
from straxflow.reports.estimate import LITTLE, Estimate, estimate
from straxflow.reports.runtable import Choice, from_database, from_state
from straxflow.rundb.client import RunDb
from straxflow.rundb.rundoc import IDENTITY, name_of
from straxflow.runlist import FORMS as RUN_FORMS
from straxflow.runlist import RunList, parse_runs

DESCRIPTION = (
    "Tells what is still to be done for runs at this site (steps of products whose receipts are missing), and how\n"
    "much CPU, space and time it takes, by the medians of what past runs took for each GB of live data. Without\n"
    "options: for all runs. Nothing is changed, and nothing is claimed. Exit code 1 if a named run is not known, or\n"
    "the run database did not answer."
)
EXAMPLES = (
    "straxflow --profile stoomboot plan --mode 'bkg*'",
    "straxflow --profile stoomboot plan --runs 900-950 @good_runs.txt --jobs 20",
    "straxflow --profile stoomboot --campaign v5 plan --runs 900-950",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--runs", metavar="RUN", nargs="+", default=[], help=f"these runs: {RUN_FORMS}")
    parser.add_argument("--mode", metavar="M", action="append", default=[], help="only this mode (* and ? allowed)")
    parser.add_argument("--since", metavar="WHEN", help=f"only runs that began then or later: {FORMS}")
    parser.add_argument("--jobs", metavar="N", type=int, help="jobs at once (default: as the profile says, or 1)")
    parser.add_argument("--sample", metavar="N", type=int, default=SAMPLE, help=f"past runs to go by ({SAMPLE})")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the plan."""
    site = open_site(arguments)
    config, state = site.config, site.state
    if arguments.jobs is not None and arguments.jobs < 1:
        raise UsageError(f"--jobs {arguments.jobs}: expected 1 or more")
    check_marker(state.folder, "state", marker_site(config, "state", state))
    runs = parse_runs(arguments.runs, config) if arguments.runs else None
    choice = Choice(
        modes=tuple(arguments.mode), runs=runs, since=moment(arguments.since, "--since") if arguments.since else None
    )
    costs = costs_of_site(config, state, arguments.sample)
    found, problem = ask(config, lambda db: _by_database(db, site, choice, costs))
    if found is None:
        found = estimate(config, state, from_state(config, state, choice), costs, runs is not None), []
    whole, unknown = found
    jobs = arguments.jobs or _jobs_of(site)
    if arguments.json:
        sums = {name: getattr(whole, name) for name in ("jobs", "unknown", "cpu_hours", "seconds", "live_bytes")}
        sums |= {name: getattr(whole, name) for name in ("made_bytes", "stored_bytes")}
        basis = {"runs": len({cost.run for cost in costs}), "jobs_at_once": jobs}
        parts = list(whole.parts.values())
        emit_json(
            {"rundb_problem": problem, "unknown_runs": unknown, **asdict(whole), **sums, "parts": parts, "basis": basis}
        )
    else:
        emit(*_told(site, whole, costs, jobs, problem, unknown))
    return 1 if problem or unknown else 0


def _by_database(db: RunDb, site: Site, choice: Choice, costs: Sequence[Cost]) -> tuple[Estimate, list[str]]:
    rows = from_database(db, site.config, site.campaign, choice)
    unknown = _unknown(db, site, choice.runs) if choice.runs else []
    return estimate(site.config, site.state, rows, costs, choice.runs is not None), unknown


def _unknown(db: RunDb, site: Site, runs: RunList) -> list[str]:
    documents = list(db.runs.find(runs.query(), dict.fromkeys(IDENTITY, 1)))
    numbers = [d["number"] for d in documents if isinstance(d.get("number"), int)]
    return runs.unmatched(numbers, [name for d in documents if (name := name_of(d, site.config))])


def _jobs_of(site: Site) -> int:
    told = site.profile_settings.get("jobs") or site.profile_settings.get("cores")
    return told if isinstance(told, int) and told > 0 else 1


def _told(
    site: Site, found: Estimate, costs: Sequence[Cost], jobs: int, problem: str | None, unknown: Sequence[str]
) -> Iterator[Table | str]:
    if problem:
        yield f"by the state folder alone, which knows only runs that were begun: {problem}"
    yield from (f"{word}: there is no run document of it" for word in unknown)
    modes = ", ".join(f"{count} {mode}" for mode, count in sorted(found.modes.items()))
    yield (
        f"site {site.config.site}, campaign {site.campaign}: {found.runs} runs, {found.complete} of them complete"
        + (f"; to be worked on: {modes}" if modes else "; nothing to do")
    )
    if found.outside:
        yield f"{found.outside} more are being taken, held by a tag, malformed, or of a mode that is not worked on"
    if not found.parts:
        return
    made = table("  product", "step", ">jobs", ">live data", ">time", ">CPU h", ">made", ">memory", ">past runs")
    for part in found.parts.values():
        known = part.jobs > part.unknown
        hours = f"{part.cpu_seconds / 3600:.3g}" if part.basis else "?"
        little = part.step in LITTLE and not part.basis
        add(
            made, f"  {part.product}", part.step, part.jobs, size(part.live_gb * 1e9),
            "little" if little else span(part.seconds) if known else "?", "little" if little else hours,
            size(part.out_bytes) if part.step in ("transfer", "process") else None,
            f"{part.peak_rss_mb:.0f} MB" if part.peak_rss_mb else None, part.basis or None,
        )  # fmt: skip
    yield made
    yield f"\n{found.jobs} jobs, {found.cpu_hours:.3g} CPU hours; {span(found.seconds)} one after another" + (
        f", about {span(found.seconds / jobs)} with {jobs} at once" if jobs > 1 else ""
    )
    where = "for good" if site.config.release.staging == "keep" else "until they are stored"
    yield (
        f"space: {size(found.live_bytes) or 'nothing'} in live, {size(found.made_bytes) or 'nothing'} in staging "
        f"({where}), {size(found.stored_bytes) or 'nothing'} in the store"
    )
    yield from _basis(found, costs)


def _basis(found: Estimate, costs: Sequence[Cost]) -> Iterator[str]:
    runs = len({cost.run for cost in costs})
    if not runs:
        yield "there is no basis for CPU and time: no run has been worked on here yet"
    else:
        yield f"told by what the last {runs} runs here took for each GB of live data"
    if found.guessed:
        yield f"the sizes of {found.guessed} runs are guessed by their lengths and past runs of their modes"
    if found.unsized:
        yield f"{found.unsized} runs have no known size or rate: their jobs are counted, but not what they take"
    if runs and (unknown := found.unknown):
        yield f"of {unknown} jobs nothing is known: no past run took such a step, or the run's size is not known"
