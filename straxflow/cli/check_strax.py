"""Check of strax: its Python runs, the contexts import and know the targets."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from straxflow.cli import strax_python
from straxflow.cli.site import Site
from straxflow.config import LIVE, Config
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
        how = {
            "context": product.context or config.strax.context,
            "context_kwargs": {**config.strax.context_kwargs, **product.context_kwargs},
            "config": {**config.strax.config, **product.config},
        }
        key = json.dumps(how, sort_keys=True, default=str)
        found.setdefault(key, {**how, "targets": []})["targets"] += config.targets(name)
    return list(found.values())


def _context(config: Config, wanted: dict[str, Any]) -> Iterator[Verdict]:
    name = wanted["context"]
    package = strax_python.package_of(name)
    with tempfile.TemporaryDirectory(prefix="straxflow-check-") as folder:
        job = Path(folder) / "job.json"
        request = {**wanted, "run": "0", "source": LIVE, "source_folder": folder, "output_folder": folder}
        job.write_text(json.dumps(request, default=str), encoding="utf-8")
        lineages = strax_python.ask(config, "straxflow.straxjob", ["--lineage", str(job)], TIMEOUT_S)
    packages = list(dict.fromkeys(["strax", package, "numpy"]))
    shown = strax_python.ask(config, "straxflow.versions", packages, TIMEOUT_S)
    versions = ", ".join(f"{p['name']} {p.get('version', 'not installed')}" for p in shown)
    made = ", ".join(f"{target} {lineage}" for target, lineage in lineages.items())
    yield ok("strax", f"{name} with {versions}; lineages {made}")
