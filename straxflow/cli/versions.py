"""`straxflow versions`: which software makes the data here."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from straxflow import strax_python
from straxflow.cli.site import open_site
from straxflow.config import Config
from straxflow.errors import StraxflowError
from straxflow.versions import versions

OWN = ("straxflow", "snakemake", "snakemake_executor_plugin_slurm", "pymongo", "pydantic")
MAKERS = ("straxflow", "strax", "numpy", "numba")
TIMEOUT_S = 60

DESCRIPTION = (
    "Shows version, path and git state (branch, commit, changes) of the packages that make the data, in\n"
    "straxflow's own Python and in the site's Python with strax, where that is another."
)
EXAMPLES = ("straxflow --profile stoomboot versions amstrax strax numpy",)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help="import names; by default what matters here")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the versions, of this Python and of the one with strax."""
    problem = None
    try:
        found = _all(open_site(arguments).config, arguments.packages)
    except StraxflowError as error:
        # this Python's versions are worth having even where the rest is broken
        problem = str(error)
        found = {"straxflow": [v.as_dict() for v in versions(arguments.packages or OWN)]}
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        for place, packages in found.items():
            print(f"{place}:")
            width = max(len(p["name"]) for p in packages)
            for package in packages:
                print(f"  {package['name']:<{width}}  {_line(package)}")
    if problem:
        print(f"straxflow versions: the Python with strax was not asked: {problem}", file=sys.stderr)
        return 1
    return 0


def _all(config: Config, wanted: list[str]) -> dict[str, list[dict[str, Any]]]:
    contexts = [config.strax.context, *(p.context for p in config.products.values() if p.context)]
    makers = wanted or [*MAKERS, *map(strax_python.package_of, contexts)]
    if strax_python.is_own(config):
        return {"straxflow and strax": [v.as_dict() for v in versions(wanted or dict.fromkeys([*OWN, *makers]))]}
    return {
        "straxflow": [v.as_dict() for v in versions(wanted or OWN)],
        "strax": strax_python.ask(config, "straxflow.versions", makers, TIMEOUT_S),
    }


def _line(package: dict[str, Any]) -> str:
    if "version" not in package:
        return "not installed"
    git = package.get("git")
    state = ""
    if git:
        changed = ", with changes" if git["dirty"] else ""
        state = f"  git {git['branch'] or 'detached'} {git['commit'][:10]}{changed}"
    return f"{package['version']}{state}  {package.get('path', '')}"
