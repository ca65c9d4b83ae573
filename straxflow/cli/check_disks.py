"""Checks of folders and store: the right ones, and room for how long."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from straxflow.cli.site import Site
from straxflow.config.sections.places import Room
from straxflow.disks import Disk
from straxflow.errors import StraxflowError
from straxflow.folders import local_folders, marker_site
from straxflow.fsio import check_marker
from straxflow.reports.disks import Growth
from straxflow.reports.places import REMOTE_S, quick_store
from straxflow.reports.verdict import Check, Verdict, failed, ok, warning
from straxflow.transport.store import space_of

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
    limits: Room = getattr(site.config.disks, kind, Room(min_free_gb=0, max_used_percent=100))
    yield _room(Disk(kind, str(folder), space_of(folder), limits), growth.on(folder))


def _store(site: Site, growth: Growth) -> Iterator[Verdict]:
    store = quick_store(site.config)
    try:
        store.check_marker("store", site.config.site)
    except StraxflowError as error:
        yield failed("store", str(error), INIT)
        return
    remote = site.config.store.ssh is not None
    rate = growth.by_kind()["store"] if remote else growth.on(site.config.store.folder)
    yield _room(Disk("store", store.where, store.space(), site.config.store), rate)


def _room(disk: Disk, rate: float) -> Verdict:
    part = "store" if disk.kind == "store" else f"folder {disk.kind}"
    free = disk.space.free
    text = f"{disk.where}: {free / 1e9:.1f} GB free, {disk.space.used_percent:.0f} % used"
    days = free / rate if rate else None
    if days is not None:
        lasts = f"{days:.0f} days" if days < 3650 else "years"
        text += f", enough for {lasts} at the present {rate / 1e9:.3g} GB a day"
    if disk.limit:
        return failed(part, text, f"{disk.limit}: nothing is claimed until there is room")
    if free / 1e9 < LITTLE_GB or (days is not None and days < LITTLE_DAYS):
        return warning(part, text, "make room soon")
    return ok(part, text)
