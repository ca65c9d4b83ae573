"""Stores that are asked by a person who waits for the answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from straxflow.config import Config
from straxflow.folders import open_store
from straxflow.transport import RemoteStore
from straxflow.transport import open_store as open_store_at
from straxflow.transport.store import Store

REMOTE_S = 20


def impatient(store: Store) -> Store:
    """The same store; on another host it must answer soon."""
    if isinstance(store, RemoteStore):
        return replace(store, timeout_s=REMOTE_S, ssh_options=[*store.ssh_options, "-o", "ConnectTimeout=10"])
    return store


def quick_store(config: Config) -> Store:
    """The site's store."""
    return impatient(open_store(config))


def quick_daq(config: Config, folder: Path) -> Store:
    """A folder on the DAQ's disk, only ever looked at."""
    return impatient(open_store_at(folder, config.daq.ssh, config.daq.ssh_options))
