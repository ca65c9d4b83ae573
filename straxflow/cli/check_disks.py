"""Checks of folders and store: the right ones, and room for how long."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Lock

from straxflow.cli.site import Site
from straxflow.cli.verdict import Check, Verdict, failed, ok, warning
from straxflow.config import LIVE
from straxflow.errors import StraxflowError
from straxflow.folders import local_folders, marker_site, open_store
from straxflow.fsio import check_marker
from straxflow.receipts import Processed, Receipt, State, Stored, Transferred, now, read
from straxflow.transport import RemoteStore

RATE_OVER = timedelta(days=7)
LITTLE_DAYS = 7
LITTLE_GB = 1
REMOTE_S = 20
INIT = "straxflow init makes it, if the disk is mounted and the path right"


def checks(site: Site) -> list[Check]:
    """A check for each local folder, and for the store."""
    growth = Growth(site)
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
    store = open_store(site.config)
    if isinstance(store, RemoteStore):
        store = replace(store, timeout_s=REMOTE_S, ssh_options=[*store.ssh_options, "-o", "ConnectTimeout=10"])
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


class Growth:
    """Bytes a day that came to stay, by the receipts of the last 7 days; read once, for all checks.

    Counted from the first of them, but at least over one day, so that a site's first hour promises no flood.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._lock = Lock()
        self._rates: dict[str, float] | None = None

    def by_kind(self) -> dict[str, float]:
        """By kind of folder."""
        with self._lock:
            if self._rates is None:
                config, state = self._site.config, self._site.state
                kept: list[tuple[str, type[Receipt]]] = [("store", Stored)]
                if config.release.live == "keep" or "release" not in config.steps:
                    kept.append((LIVE, Transferred))
                if config.release.staging == "keep" or "release" not in config.steps:
                    kept.append(("staging", Processed))
                self._rates = {kind: _per_day(_recent(state, model)) for kind, model in kept}
            return self._rates

    def on(self, folder: Path) -> float:
        """On the file system of a folder, all kinds together."""
        places = dict(local_folders(self._site.config, self._site.state))
        if self._site.config.store.ssh is None:
            places["store"] = self._site.config.store.folder
        device = _device(folder)
        return sum(rate for kind, rate in self.by_kind().items() if kind in places and _device(places[kind]) == device)


def _device(folder: Path) -> int | None:
    try:
        return folder.stat().st_dev
    except OSError:
        return None


def _per_day(sizes: Iterable[tuple[datetime, int]]) -> float:
    rows = list(sizes)
    if not rows:
        return 0
    days = (now() - min(made for made, _ in rows)) / timedelta(days=1)
    return sum(size for _, size in rows) / max(days, 1)


def _recent(state: State, model: type[Receipt]) -> Iterator[tuple[datetime, int]]:
    since = now() - RATE_OVER
    for path in state.runs.glob(f"*/*/{model.name}"):
        try:
            # a receipt is never older than its file's time: most of a long campaign is told by a look at that
            if path.stat().st_mtime < since.timestamp():
                continue
            receipt = read(path, model)
        except (StraxflowError, OSError):
            continue
        if receipt.made >= since:
            yield receipt.made, getattr(receipt, "bytes", 0)
