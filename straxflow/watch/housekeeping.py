"""What would pile up over months: scratch of dead attempts, logs and batch files of ended invocations."""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from pathlib import Path

from straxflow.batch import BATCH_TIME
from straxflow.config import Config
from straxflow.errors import StraxflowError
from straxflow.folders import check_folders, open_store
from straxflow.fsio import INCOMING, name_of_incoming, owner_is_dead, reap, remove_tree
from straxflow.receipts import State, now
from straxflow.rundb.client import connect
from straxflow.rundb.rundoc import campaign_part
from straxflow.watch.invocations import WATCH

log = logging.getLogger(__name__)

DAY_S = 86_400.0
PER_BATCH = ("batches", "logs/batches", "benchmarks/batches")
"""Folders in the state folder with files that an invocation leaves, each beginning with its batch."""
BATCH_NAME = re.compile(r"\d{8}T\d{6}_[0-9a-f]{6}(?=\.)")
DAYS = 7
"""Files of an invocation that is younger are kept in any case."""
SNAKEMAKE_LOGS = ".snakemake/log"


def tidy(config: Config, state: State, alive: Collection[str]) -> None:
    """Remove what nobody needs any more, and say so. Never fails: a place out of reach is left."""
    places: dict[str, Callable[[], int]] = {
        "scratch of dead attempts": lambda: len(reap(config.folders.scratch_folder)),
        "partial copies in the live folder": lambda: _reap_partial(config.folders.live),
        "partial copies in staging": lambda: _reap_partial(config.folders.staging),
        "partial copies in the store": lambda: len(open_store(config).reap(only_replaced=True)),
        "files of ended invocations": lambda: _prune_batches(
            state, {*alive, *_claiming(config, state)}, config.watch.keep
        ),
        "records of invocations on other hosts": lambda: _prune_records(state),
        "logs of snakemake": lambda: _prune(state.folder / SNAKEMAKE_LOGS, config.watch.keep),
    }
    try:
        check_folders(config, state)
    except StraxflowError as error:
        log.warning("nothing was tidied up: %s", error)
        return
    for what, remove in places.items():
        try:
            if count := remove():
                log.info("tidied up: %s: %d", what, count)
        except FileNotFoundError:
            continue
        except (StraxflowError, OSError) as error:
            log.warning("%s: not tidied up: %s", what, error)


def _reap_partial(folder: Path) -> int:
    """Partial copies of dead attempts serve the next attempt, so only those that have had their day are removed."""
    removed = 0
    for path in folder.iterdir():
        if not path.name.startswith(INCOMING) or not owner_is_dead(path.name):
            continue
        if (folder / name_of_incoming(path.name)).exists() or path.stat().st_mtime < time.time() - DAY_S:
            remove_tree(path)
            removed += 1
    return removed


def _claiming(config: Config, state: State) -> set[str]:
    """Invocations that hold claims, whoever started them: their jobs read files of theirs."""
    field = f"straxflow.{state.folder.name}.claim.batch"
    with connect(config) as db:
        parts = [campaign_part(found, state.folder.name) for found in db.runs.find({field: {"$gt": ""}}, {field: 1})]
    return {str(part["claim"]["batch"]) for part in parts if isinstance(part.get("claim"), Mapping)}


def _prune_batches(state: State, alive: Collection[str], keep: int) -> int:
    found: dict[str, list[Path]] = {}
    for name in PER_BATCH:
        if (state.folder / name).is_dir():
            for path in (state.folder / name).iterdir():
                if match := BATCH_NAME.match(path.name):
                    found.setdefault(match[0], []).append(path)
    # one that a person started may live, unknown to this watcher
    recent = (now() - timedelta(days=DAYS)).strftime(BATCH_TIME)
    doomed = [batch for batch in sorted(found)[:-keep] if batch not in alive and batch < recent]
    for path in (path for batch in doomed for path in found[batch]):
        path.unlink(missing_ok=True)
    return len(doomed)


def _prune_records(state: State) -> int:
    long_ago = time.time() - 60 * DAY_S
    doomed = [path for path in (state.folder / WATCH).iterdir() if path.stat().st_mtime < long_ago]
    for path in doomed:
        shutil.rmtree(path, ignore_errors=True)
    return len(doomed)


def _prune(folder: Path, keep: int) -> int:
    doomed = sorted(folder.iterdir(), key=lambda path: path.name)[:-keep]
    for path in doomed:
        path.unlink(missing_ok=True)
    return len(doomed)
