"""Checks of folders and store: the right ones, and room for how long."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from straxflow.cli.site import Site
from straxflow.errors import StraxflowError
from straxflow.folders import local_folders, marker_site
from straxflow.fsio import check_marker
from straxflow.reports.disks import Growth
from straxflow.reports.places import REMOTE_S, quick_store
from straxflow.reports.verdict import Check, Verdict, failed, ok, warning

LITTLE_DAYS = 7
LITTLE_GB = 1
INIT = "straxflow init makes it, if the disk is mounted and the path right"


def checks(site: Site) -> list[Check]:
    """A check for each local folder, and for the store."""
    growth = Growth(site.config, site.state)
    found = [
        Check(f"folder {kind}", partial(_folder, site, growth, kind, folder))
        for kind, folder in local_folders(site.config, site.state)
    ]
    return [*found, Check("store", partial(_store, site, growth), timeout_s=2 * REMOTE_S)]


def _folder(site: Site, growth: Growth, kind: str, folder: Path) -> Iterator[Verdict]:
    part = f"folder {kind}"
    try:
        check_marker(folder, kind, marker_site(site.config, kind, site.state))
    except StraxflowError as error:
        yield failed(part, str(error), INIT)
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        yield failed(part, f"{folder}: cannot be written by this user", "correct its owner or permissions")
        return
    yield _room(part, str(folder), shutil.disk_usage(folder).free, growth.on(folder), LITTLE_GB)


def _store(site: Site, growth: Growth) -> Iterator[Verdict]:
    store = quick_store(site.config)
    try:
        store.check_marker("store", site.config.site)
    except StraxflowError as error:
        yield failed("store", str(error), INIT)
        return
    remote = site.config.store.ssh is not None
    rate = growth.by_kind()["store"] if remote else growth.on(site.config.store.folder)
    least = site.config.store.min_free_gb
    free = store.free_bytes()
    verdict = _room("store", store.where, free, rate, least)
    if free / 1e9 < least:
        verdict = failed("store", verdict.text, f"less than store.min_free_gb ({least:g}) is free: make room")
    yield verdict


def _room(part: str, where: str, free: int, rate: float, least_gb: float) -> Verdict:
    text = f"{where}: {free / 1e9:.1f} GB free"
    days = free / rate if rate else None
    if days is not None:
        lasts = f"{days:.0f} days" if days < 3650 else "years"
        text += f", enough for {lasts} at the present {rate / 1e9:.3g} GB a day"
    if free / 1e9 < least_gb or (days is not None and days < LITTLE_DAYS):
        return warning(part, text, "make room soon")
    return ok(part, text)
