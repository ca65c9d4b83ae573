"""Room on the disks, location by location, and for how long it lasts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Lock

from straxflow.config import LIVE, Config
from straxflow.errors import StraxflowError
from straxflow.folders import local_folders, marker_site
from straxflow.fsio import check_marker
from straxflow.receipts import Processed, Receipt, State, Stored, Transferred, now, read
from straxflow.reports.places import quick_store

RATE_OVER = timedelta(days=7)


@dataclass(frozen=True)
class Disk:
    """A folder of the site. `total` is not known of a remote one; `problem`: why it cannot be used."""

    kind: str
    where: str
    free: int | None = None
    total: int | None = None
    least: int = 0
    problem: str | None = None

    @property
    def free_percent(self) -> float | None:
        """Share that is free, %."""
        return 100 * self.free / self.total if self.free is not None and self.total else None


def local(config: Config, state: State) -> list[Disk]:
    """The folders that are mounted here, each proved by its marker."""
    return [look() for _, look in local_looks(config, state)]


def remote(config: Config) -> list[Disk]:
    """The store, where it is on another host."""
    return [look() for _, look in remote_looks(config)]


def local_looks(config: Config, state: State) -> list[tuple[str, Callable[[], Disk]]]:
    """Kind and look at each folder that is mounted here; each look may hang with its disk."""
    found: list[tuple[str, Callable[[], Disk]]] = [
        (kind, partial(_local, Disk(kind, str(folder)), folder, marker_site(config, kind, state)))
        for kind, folder in local_folders(config, state)
    ]
    if config.store.ssh is None:
        disk = Disk("store", str(config.store.folder), least=_least(config))
        found.append(("store", partial(_local, disk, config.store.folder, config.site)))
    return found


def remote_looks(config: Config) -> list[tuple[str, Callable[[], Disk]]]:
    """The same of a store on another host."""
    if config.store.ssh is None:
        return []

    def measure(disk: Disk) -> Disk:
        store = quick_store(config)
        store.check_marker("store", config.site)
        return replace(disk, free=store.free_bytes())

    disk = Disk("store", f"{config.store.ssh}:{config.store.folder}", least=_least(config))
    return [("store", partial(_measured, disk, measure))]


def _least(config: Config) -> int:
    return int(config.store.min_free_gb * 1e9)


def _local(disk: Disk, folder: Path, site: str) -> Disk:
    def measure(disk: Disk) -> Disk:
        check_marker(folder, disk.kind, site)
        usage = shutil.disk_usage(folder)
        return replace(disk, free=usage.free, total=usage.total)

    return _measured(disk, measure)


def _measured(disk: Disk, measure: Callable[[Disk], Disk]) -> Disk:
    try:
        return measure(disk)
    except (StraxflowError, OSError) as error:
        return replace(disk, problem=str(error))


class Growth:
    """Bytes a day that came to stay, by the receipts of the last 7 days; read once, for all who ask.

    Counted from the first of them, but at least over one day, so that a site's first hour promises no flood.
    """

    def __init__(self, config: Config, state: State) -> None:
        self._config = config
        self._state = state
        self._lock = Lock()
        self._rates: dict[str, float] | None = None

    def by_kind(self) -> dict[str, float]:
        """By kind of folder."""
        with self._lock:
            if self._rates is None:
                config = self._config
                kept: list[tuple[str, type[Receipt]]] = [("store", Stored)]
                if config.release.live == "keep" or "release" not in config.steps:
                    kept.append((LIVE, Transferred))
                if config.release.staging == "keep" or "release" not in config.steps:
                    kept.append(("staging", Processed))
                self._rates = {kind: _per_day(_recent(self._state, model)) for kind, model in kept}
            return self._rates

    def on(self, folder: Path) -> float:
        """On the file system of a folder, all kinds together."""
        places = dict(local_folders(self._config, self._state))
        if self._config.store.ssh is None:
            places["store"] = self._config.store.folder
        device = _device(folder)
        return sum(rate for kind, rate in self.by_kind().items() if kind in places and _device(places[kind]) == device)

    def of(self, disk: Disk) -> float:
        """On the file system of a location."""
        if disk.kind == "store" and self._config.store.ssh is not None:
            return self.by_kind()["store"]
        return self.on(Path(disk.where))


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
