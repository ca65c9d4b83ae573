"""`straxflow compare`: are our data those that another tool made of the same runs?"""

from __future__ import annotations

import argparse
from collections import Counter

from straxflow.cli.output import add, emit, emit_json, table
from straxflow.cli.site import open_site
from straxflow.compare import Compared, compare
from straxflow.errors import StraxflowError
from straxflow.folders import marker_site
from straxflow.fsio import check_marker
from straxflow.rundb.client import connect
from straxflow.rundb.rundoc import Malformed, query_for
from straxflow.runlist import FORMS, parse_runs

DESCRIPTION = (
    "Compares the data files that straxflow made with those that another tool has registered of the same runs, by\n"
    "their digests: theirs are read, ours are told by their manifests. For the time as a shadow (docs/migration.md).\n"
    "Exit code 1 if anything differs."
)
EXAMPLES = (
    "straxflow --profile stoomboot_shadow compare 3012 3013",
    "straxflow --profile stoomboot_shadow compare --json",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"{FORMS}; by default all that are here")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the comparisons; 1 if anything differs."""
    site = open_site(arguments)
    check_marker(site.state.folder, "state", marker_site(site.config, "state", site.state))
    wanted = parse_runs(arguments.runs, site.config) if arguments.runs else None
    names = wanted.ids(site.config, site.state) if wanted else sorted(site.state.all_runs())
    rows: list[Compared] = []
    problems: list[str] = []
    for name in names:
        try:
            # one connection a run: reading the files in between may take hours
            with connect(site.config) as db:
                document = db.runs.find_one(query_for(name, site.config), {"data": 1, "mode": 1})
            if document is None:
                problems.append(f"run {name}: there is no run document of it")
                continue
            for row in compare(site.config, site.state, name, document):
                rows.append(row)
        except Malformed as error:
            problems.append(str(error))
        except (StraxflowError, OSError) as error:
            problems.append(f"run {name}: {error}")
    if wanted and not names:
        problems.append("nothing of these runs is here")
    counts: Counter[str] = Counter(row.verdict for row in rows)
    if arguments.json:
        emit_json({"compared": rows, "counts": dict(counts), "problems": problems})
    else:
        shown = table("run", "data type", "verdict", "~what")
        for row in rows:
            add(shown, row.run, row.type, row.verdict, row.text)
        told = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()) or "nothing to compare"
        emit(*([shown] if rows else []), told, *problems)
    return 1 if counts["differs"] or problems else 0
