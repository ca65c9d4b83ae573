"""The folders of a site: made once by `straxflow init`, known by their markers, never made in passing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from straxflow.config import Config
from straxflow.errors import NotMounted, StraxflowError
from straxflow.fsio import check_marker, write_marker
from straxflow.permissions import give_folder
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
        NotMounted: naming all folders that are not, as far as one can tell for their disks.
        StraxflowError: if there are others among them.
    """
    problems: list[StraxflowError] = []
    for kind, folder in local_folders(config, state):
        try:
            check_marker(folder, kind, marker_site(config, kind, state))
        except StraxflowError as error:
            problems.append(error)
    if problems:
        away = all(isinstance(problem, NotMounted) for problem in problems)
        raise (NotMounted if away else StraxflowError)("\n".join(map(str, problems)))


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
    for folder in _logs_of_snakemake(config):
        folder.mkdir(parents=True, exist_ok=True)
    given = [folder for folder in shared_folders(config, state) if give_folder(config, folder)]
    return made + [f"group and mode of {folder}" for folder in given]


def shared_folders(config: Config, state: State) -> list[Path]:
    """The folders here whose group and mode all that is made in them inherits."""
    store = [config.store.folder] if config.store.ssh is None else []
    own = (folder for _, folder in local_folders(config, state))
    return [config.folders.state, *own, *store, *_logs_of_snakemake(config)]


def _logs_of_snakemake(config: Config) -> list[Path]:
    """Where snakemake begins its log before it knows of any configuration: in the folder where it is started."""
    shared = config.permissions.group or config.permissions.umask
    here = Path.cwd() / ".snakemake"
    return [here, here / "log"] if shared and (here.parent / "Snakefile").exists() else []
