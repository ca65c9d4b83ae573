"""Free space on this site's disks, here or over ssh, and whether it is enough to claim more runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from straxflow.config import Config
from straxflow.config.sections.places import Room
from straxflow.errors import StraxflowError
from straxflow.folders import open_store
from straxflow.receipts import State
from straxflow.reports.places import quick_store
from straxflow.transport.store import Space, space_of

KEEP_S = 30.0
"""A remote disk is not asked more often than this, seconds: a log-in takes longer than all queries together."""

_remote: dict[str, tuple[float, Space | None]] = {}


@dataclass(frozen=True)
class Disk:
    """One of the site's disks."""

    kind: str
    where: str
    space: Space
    limits: Room

    @property
    def limit(self) -> str | None:
        """The limit that it is beyond, if any."""
        key = "store" if self.kind == "store" else f"disks.{self.kind}"
        if self.space.free / 1e9 < self.limits.min_free_gb:
            return f"{key}.min_free_gb is {self.limits.min_free_gb:g}"
        if self.space.used_percent > self.limits.max_used_percent:
            return f"{key}.max_used_percent is {self.limits.max_used_percent:g}"
        return None

    @property
    def problem(self) -> str | None:
        """Why no more runs are claimed with this little room; None if there is enough."""
        if self.limit is None:
            return None
        free, used = self.space.free / 1e9, self.space.used_percent
        return (
            f"the disk of {self.kind}, {self.where}, is too full: {free:.4g} GB free, {used:.3g} % used; {self.limit}"
        )


def disks(config: Config, state: State) -> Iterator[Disk]:
    """The disks that this site's steps fill.

    Raises:
        StraxflowError, OSError: if one cannot be asked.
    """
    steps = config.steps
    if "transfer" in steps:
        yield _here("live", config.folders.live, config)
    if "process" in steps:
        yield _here("staging", config.folders.staging, config)
    yield _here("state", state.folder, config)
    if "move_out" in steps:
        store = open_store(config)
        yield Disk("store", store.where, _store_space(config), config.store)


def too_full(config: Config, state: State) -> list[str]:
    """Why nothing may be claimed: disks that are too full, or cannot be asked."""
    problems = []
    found = disks(config, state)
    try:
        for disk in found:
            if disk.problem:
                problems.append(disk.problem)
    except StraxflowError as error:
        problems.append(f"free space is not known: {error}")
    except OSError as error:
        problems.append(f"free space of {error.filename} is not known: {error.strerror}")
    return problems


def _here(kind: str, folder: Path, config: Config) -> Disk:
    return Disk(kind, str(folder), space_of(folder), getattr(config.disks, kind))


def _store_space(config: Config) -> Space:
    store = quick_store(config)
    if config.store.ssh is None:
        return store.space()
    asked, space = _remote.get(store.where, (0.0, None))
    if space is None or time.monotonic() - asked > KEEP_S:
        space = store.space()
        _remote[store.where] = (time.monotonic(), space)
    return space
