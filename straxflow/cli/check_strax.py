"""Check of strax: its Python runs, the contexts import and know the targets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from straxflow import strax_python
from straxflow.cli.site import Site
from straxflow.config import Config
from straxflow.reports.verdict import Check, Verdict, ok

# numba and its plugins are slow to import from a cold disk
TIMEOUT_S = 120


def checks(site: Site) -> list[Check]:
    """A check for each context that products name."""
    if "process" not in site.config.steps:
        return []
    return [
        Check("strax", partial(_context, site.config, wanted), timeout_s=2 * TIMEOUT_S + 10)
        for wanted in _contexts(site.config)
    ]


def _contexts(config: Config) -> list[dict[str, Any]]:
    """Each context with its keywords and options, and the targets that products make by it."""
    found: dict[str, dict[str, Any]] = {}
    for name, product in config.products.items():
        if product.kind != "strax":
            continue
        how = strax_python.context_of(config, name)
        key = json.dumps(how, sort_keys=True, default=str)
        found.setdefault(key, {**how, "targets": []})["targets"] += config.targets(name)
    return list(found.values())


def _context(config: Config, wanted: dict[str, Any]) -> Iterator[Verdict]:
    name = wanted["context"]
    package = strax_python.package_of(name)
    how = {key: value for key, value in wanted.items() if key != "targets"}
    lineages = strax_python.lineages(config, how, wanted["targets"], TIMEOUT_S)
    packages = list(dict.fromkeys(["strax", package, "numpy"]))
    shown = strax_python.ask(config, "straxflow.versions", packages, TIMEOUT_S)
    versions = ", ".join(f"{p['name']} {p.get('version', 'not installed')}" for p in shown)
    made = ", ".join(f"{target} {lineage}" for target, lineage in lineages.items())
    yield ok("strax", f"{name} with {versions}; lineages {made}")
