"""The folders of a site: made once by `straxflow init`, known by their markers, never made in passing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from straxflow.config import Config
from straxflow.errors import StraxflowError
from straxflow.fsio import check_marker, write_marker
from straxflow.receipts import State
from straxflow.transport import open_store as open_store_at
from straxflow.transport.store import Store


def local_folders(config: Config, state: State) -> Iterator[tuple[str, Path]]:
    """Kind and place of every folder of this site that is mounted here, but the store."""
    yield "state", state.folder
    yield "live", config.folders.live
    yield "staging", config.folders.staging
    if config.folders.scratch:
        yield "scratch", config.folders.scratch


def open_store(config: Config) -> Store:
    """The store of this site."""
    store = config.store
    return open_store_at(store.folder, store.ssh, store.ssh_options)


def marker_site(config: Config, kind: str, state: State) -> str:
    """What a marker says besides its kind; a state folder belongs to one campaign."""
    return f"{config.site}/{state.folder.name}" if kind == "state" else config.site


def check_folders(config: Config, state: State) -> None:
    """Make sure that each folder is there and is the right one; an unmounted disk must not look like no data.

    Raises:
        StraxflowError: naming all folders that are not.
    """
    problems = []
    for kind, folder in local_folders(config, state):
        try:
            check_marker(folder, kind, marker_site(config, kind, state))
        except StraxflowError as error:
            problems.append(str(error))
    if problems:
        raise StraxflowError("\n".join(problems))


def init_folders(config: Config, state: State) -> list[str]:
    """Make the folders and their markers where they are missing; what was made, as messages.

    Raises:
        StraxflowError: if a folder belongs to another site or holds something unmarked.
    """
    made = []
    for kind, folder in local_folders(config, state):
        site = marker_site(config, kind, state)
        try:
            check_marker(folder, kind, site)
        except StraxflowError:
            folder.mkdir(parents=True, exist_ok=True)
            write_marker(folder, kind, site)
            made.append(f"{kind}: {folder}")
    store = open_store(config)
    try:
        store.check_marker("store", config.site)
    except StraxflowError:
        store.write_marker("store", config.site)
        made.append(f"store: {store.where}")
    return made
