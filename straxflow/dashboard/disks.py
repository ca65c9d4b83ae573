"""Room on the disks, location by location."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from straxflow.config import Config
from straxflow.errors import StraxflowError
from straxflow.folders import local_folders, marker_site, open_store
from straxflow.fsio import check_marker
from straxflow.receipts import State
from straxflow.transport import RemoteStore

REMOTE_S = 20


@dataclass(frozen=True)
class Disk:
    """A folder of the site. `total` is not known of a remote one; `problem`: why it cannot be used."""

    kind: str
    where: str
    free: int | None = None
    total: int | None = None
    least: int = 0
    problem: str | None = None


def local(config: Config, state: State) -> list[Disk]:
    """The folders that are mounted here, each proved by its marker."""
    found = [
        _measured(Disk(kind, str(folder)), partial(_measure, folder, marker_site(config, kind, state)))
        for kind, folder in local_folders(config, state)
    ]
    if config.store.ssh is None:
        disk = Disk("store", str(config.store.folder), least=_least(config))
        found.append(_measured(disk, partial(_measure, config.store.folder, config.site)))
    return found


def remote(config: Config) -> list[Disk]:
    """The store, where it is on another host."""
    store = open_store(config)
    if not isinstance(store, RemoteStore):
        return []
    store = replace(store, timeout_s=REMOTE_S, ssh_options=[*store.ssh_options, "-o", "ConnectTimeout=10"])

    def measure(disk: Disk) -> Disk:
        store.check_marker("store", config.site)
        return replace(disk, free=store.free_bytes())

    return [_measured(Disk("store", store.where, least=_least(config)), measure)]


def _least(config: Config) -> int:
    return int(config.store.min_free_gb * 1e9)


def _measure(folder: Path, site: str, disk: Disk) -> Disk:
    check_marker(folder, disk.kind, site)
    usage = shutil.disk_usage(folder)
    return replace(disk, free=usage.free, total=usage.total)


def _measured(disk: Disk, measure: Callable[[Disk], Disk]) -> Disk:
    try:
        return measure(disk)
    except (StraxflowError, OSError) as error:
        return replace(disk, problem=str(error))
