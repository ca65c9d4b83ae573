"""Check of the group and the modes by which several operators share a site."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from straxflow.cli.site import Site
from straxflow.folders import shared_folders
from straxflow.permissions import group_id, lacking
from straxflow.reports.verdict import Check, Verdict, failed, ok

NAMED = 5
MADE = ("runs", "logs", "batches", "benchmarks", ".snakemake", ".snakemake/log", ".snakemake/metadata")
"""What snakemake and the steps make in a state folder."""


def checks(site: Site) -> list[Check]:
    """A check if the site has a group or a umask."""
    wanted = site.config.permissions
    return [Check("permissions", lambda: _permissions(site))] if wanted.group or wanted.umask else []


def _permissions(site: Site) -> Iterator[Verdict]:
    config = site.config
    # a group that is not there, or not this user's, is told by the error
    group_id(config)
    odd = [(path, text) for path in _places(site) if path.exists() and (text := lacking(config, path))]
    wanted = ", ".join(
        text
        for text in (
            config.permissions.group and f"group {config.permissions.group}",
            config.permissions.umask and f"umask {config.permissions.umask}",
        )
        if text
    )
    if not odd:
        yield ok("permissions", wanted)
        return
    more = f"\nand {len(odd) - NAMED} more" if len(odd) > NAMED else ""
    text = "\n".join(f"{path}: {what}" for path, what in odd[:NAMED]) + more
    owners = "their owners, or an admin, run `straxflow init`, or chgrp and chmod what is inside"
    yield failed("permissions", f"{wanted}; but\n{text}", owners)


def _places(site: Site) -> Iterator[Path]:
    config = site.config
    yield from shared_folders(config, site.state)
    yield from (site.state.folder / name for name in MADE)
    yield from config.folders.state.glob("runs.sqlite*")
    newest = sorted(site.state.runs.glob("*"), key=os.path.getmtime)[-1:]
    for run in newest:
        yield from run.rglob("*")
