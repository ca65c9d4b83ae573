"""`straxflow stats`: figures over many runs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from straxflow.cli.output import Table, add, emit, emit_json, size, span, table, times
from straxflow.cli.site import open_site
from straxflow.cli.times import FORMS, moment
from straxflow.folders import marker_site
from straxflow.fsio import check_marker
from straxflow.reports.costs import SAMPLE, Rate, rates, recent_costs
from straxflow.reports.database import ask
from straxflow.reports.runtable import Choice, from_state
from straxflow.reports.stats import Bin, Stats, from_database, from_rows

MOST_REASONS = 15

DESCRIPTION = (
    "Shows figures over many runs: numbers, lengths, data volumes and rates by day, mode or state; the time from a\n"
    "run's end to its last registered product; what each step takes; failures by reason. The run database adds up;\n"
    "while it is away, the state folder tells what it knows. Exit code 1 if the database did not answer."
)
EXAMPLES = (
    "straxflow --profile stoomboot stats --since 30d",
    "straxflow --profile stoomboot stats --by mode",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--by", choices=("day", "mode", "state"), default="day", help="default: day")
    parser.add_argument("--since", metavar="WHEN", help=f"only runs that began then or later: {FORMS}")
    parser.add_argument("--until", metavar="WHEN", help="only runs that began before")
    parser.add_argument("--sample", metavar="N", type=int, default=SAMPLE, help="runs whose receipts tell the costs")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the figures."""
    site = open_site(arguments)
    config, state = site.config, site.state
    check_marker(state.folder, "state", marker_site(config, "state", state))
    since = moment(arguments.since, "--since") if arguments.since else None
    until = moment(arguments.until, "--until") if arguments.until else None
    found, problem = ask(config, lambda db: from_database(db, config, site.campaign, arguments.by, since, until))
    if found is None:
        found = from_rows(from_state(config, state, Choice(since=since, until=until)), arguments.by)
    costs = sorted(
        rates(recent_costs(config, state, since, arguments.sample)).values(), key=lambda r: (r.product, r.step)
    )
    if arguments.json:
        totals = [{**asdict(one), "rate_mb_s": one.rate_mb_s} for one in found.bins]
        emit_json({"rundb_problem": problem, "by": arguments.by, **vars(found), "bins": totals, "costs": costs})
    else:
        emit(*_told(found, arguments.by, costs, problem))
    return 1 if problem else 0


def _told(found: Stats, by: str, costs: Sequence[Rate], problem: str | None) -> Iterator[Table | str]:
    if problem:
        yield f"by the state folder alone: {problem}"
    yield _bins(found.bins, by) if found.bins else "no runs"
    if found.undated and by == "day":
        yield f"without a usable start and end, so on no day: {times(found.undated, 'run document')}"
    if found.latency:
        one = found.latency
        yield (
            f"\nfrom a run's end to its last registered product ({one.runs} runs): median {span(one.median_s)}, "
            f"90 % within {span(one.most_s)}"
        )
    if costs:
        yield "\nwhat steps take for each GB of live data (medians over past runs):"
        yield _costs(costs)
    if found.attempts:
        yield "\nattempts:"
        made = table("  product", "step", "outcome", ">jobs", ">time", ">CPU", ">most memory")
        for row in found.attempts:
            memory = row.get("peak_rss_mb")
            add(
                made, f"  {row.get('product')}", row.get("step"), row.get("outcome") or "open", row["jobs"],
                span(row["seconds"]), span(row["cpu_seconds"]), f"{memory:.0f} MB" if memory else None,
            )  # fmt: skip
        yield made
    if found.failures:
        yield "\nfailed runs by reason:"
        made = table(">  runs", "~reason")
        for reason, count in list(found.failures.items())[:MOST_REASONS]:
            add(made, count, reason)
        yield made
        if len(found.failures) > MOST_REASONS:
            yield f"  and {len(found.failures) - MOST_REASONS} more reasons (--json)"


def _bins(bins: Sequence[Bin], by: str) -> Table:
    made = table(by, ">runs", ">run time", ">live data", ">of runs", ">MB/s", ">stored here")
    total = Bin("all")
    for one in bins:
        for name in ("runs", "seconds", "sized", "live_bytes", "stored_bytes"):
            setattr(total, name, getattr(total, name) + getattr(one, name))
    for one in [*bins, total] if len(bins) > 1 else bins:
        measured = "all" if one.sized >= one.runs else str(one.sized)
        rate = f"{one.rate_mb_s:.3g}" if one.rate_mb_s is not None else None
        add(made, one.key, one.runs, span(one.seconds), size(one.live_bytes), measured, rate, size(one.stored_bytes))
    return made


def _costs(costs: Sequence[Rate]) -> Table:
    made = table("  product", "step", ">runs", ">time", ">MB/s", ">CPU h", ">made", ">memory")
    for one in costs:
        moves_data = one.step in ("transfer", "process", "checksum", "move_out")
        speed = f"{1000 / one.seconds_per_gb:.3g}" if one.seconds_per_gb and moves_data else None
        holds = size(one.out_per_gb) if one.step == "process" else None
        add(
            made, f"  {one.product}", one.step, one.runs, span(one.seconds_per_gb), speed,
            f"{one.cpu_s_per_gb / 3600:.3g}", holds, f"{one.peak_rss_mb:.0f} MB",
        )  # fmt: skip
    return made
