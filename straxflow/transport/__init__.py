"""Moving data between folders and hosts, every copy verified."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from straxflow.errors import ConfigError
from straxflow.transport.local_store import LocalStore
from straxflow.transport.pull import pull
from straxflow.transport.remote_store import RemoteStore
from straxflow.transport.rsync import Place
from straxflow.transport.store import Adopted, Store, Stored

__all__ = ["Adopted", "LocalStore", "Place", "RemoteStore", "Store", "Stored", "open_store", "pull"]


def open_store(
    folder: str | Path,
    host: str | None = None,
    ssh_options: Sequence[str] = (),
    rsync_args: Sequence[str] = ("-a",),
) -> Store:
    """The store in a folder of this host, or over ssh of another one."""
    if not str(folder).startswith("/"):
        raise ConfigError(f"store {folder}: must be an absolute path")
    if host is None:
        return LocalStore(Path(folder))
    return RemoteStore(host, str(folder).rstrip("/"), ssh_options, rsync_args)
