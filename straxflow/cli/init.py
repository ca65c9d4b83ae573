"""`straxflow init`: the folders, their identity markers and the database's indexes, made where they are missing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial

from straxflow.cli import indexes
from straxflow.cli.site import Site, open_site
from straxflow.errors import StraxflowError
from straxflow.folders import init_folders, local_folders, marker_site, open_store, shared_folders
from straxflow.fsio import check_marker
from straxflow.permissions import lacking
from straxflow.rundb.client import connect

DESCRIPTION = (
    "Makes what is missing: the folders of the site and the store with their identity markers, and the indexes\n"
    "of the run database. What is there already stays as it is, so it may be called again at any time."
)
EXAMPLES = ("straxflow --profile stoomboot init --dry-run",)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("-n", "--dry-run", action="store_true", help="only say what would be made")


def run(arguments: argparse.Namespace) -> int:
    """Make what is missing, or say what would be made."""
    site = open_site(arguments)
    dry = arguments.dry_run
    done = True
    for part in (_folders, _run_file if site.config.rundb.kind == "folders" else _indexes):
        try:
            made = part(site, dry)
        except (StraxflowError, OSError) as error:
            print(f"FAILED: {error}", file=sys.stderr)
            done = False
            continue
        for text in made:
            print(f"would make {text}" if dry else f"made {text}")
        if not made:
            print(f"{part.__doc__}: all there already")
    return 0 if done else 1


def _folders(site: Site, dry: bool) -> list[str]:
    """folders and markers"""
    if not dry:
        return init_folders(site.config, site.state)
    wanted = []
    for kind, folder in local_folders(site.config, site.state):
        if _lacks(partial(check_marker, folder, kind, marker_site(site.config, kind, site.state))):
            wanted.append(f"{kind}: {folder}")
    store = open_store(site.config)
    if _lacks(partial(store.check_marker, "store", site.config.site)):
        wanted.append(f"store: {store.where}")
    there = [folder for folder in shared_folders(site.config, site.state) if folder.is_dir()]
    return wanted + [f"group and mode of {folder}" for folder in there if lacking(site.config, folder)]


def _lacks(check: Callable[[], None]) -> bool:
    try:
        check()
    except StraxflowError:
        return True
    return False


def _run_file(site: Site, dry: bool) -> list[str]:
    """file of runs"""
    from straxflow.rundb.folders import create, file_of

    file = file_of(site.config)
    return [] if file.exists() or not (dry or create(site.config)) else [f"file of runs: {file}"]


def _indexes(site: Site, dry: bool) -> list[str]:
    """indexes of the run database"""
    made = []
    with connect(site.config) as db:
        for keys in indexes.missing(db, site.campaign, site.config.states):
            if not dry:
                indexes.create(db, keys)
            made.append(f"index: {indexes.describe(keys)} in {db.runs.full_name}")
    return made
