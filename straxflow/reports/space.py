"""What takes room on the site's disks: whose it is, what could be released, what is left over. Nothing is removed."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from straxflow.config import LIVE, Config
from straxflow.errors import StraxflowError
from straxflow.folders import marker_site
from straxflow.fsio import DIFFERS, INCOMING, MARKER, check_marker, owner_is_dead
from straxflow.owner import Owner
from straxflow.receipts import Processed, Receipt, Registered, State, Stored, Transferred
from straxflow.reports.copies import Copies, Kind

R = TypeVar("R", bound=Receipt)
Fate = Literal["needed", "could be released", "kept by configuration", "leftover", "unknown"]


@dataclass(frozen=True)
class Folder:
    """A folder on one of the disks; no run or product: no receipt knows it; no bytes: it was not measured."""

    kind: Kind | Literal["scratch"]
    name: str
    bytes: int | None
    fate: Fate
    why: str
    campaign: str = ""
    run: str = ""
    product: str = ""


@dataclass(frozen=True)
class _Made:
    """What receipts say of a product of a run."""

    campaign: str
    run: str
    product: str
    bytes: int
    stored: Stored | None
    registered: bool


class Inventory:
    """All receipts of the site's campaigns, by the names of the folders that they tell of."""

    def __init__(self, config: Config, state: State) -> None:
        self.config, self.state = config, state
        self.copies = Copies(config, state)
        self.problems: list[str] = []
        self.live: dict[str, tuple[str, Transferred]] = {}
        self.made: dict[str, _Made] = {}
        self.whole: dict[str, str] = {}
        """By run: a stored product that holds every record of its live data."""
        for one in self._campaigns():
            for run in one.all_runs():
                self._read(one, run)

    def _campaigns(self) -> Iterator[State]:
        for folder in sorted(self.config.folders.state.iterdir()):
            state = State(folder)
            if (folder / MARKER).is_file():
                check_marker(folder, "state", marker_site(self.config, "state", state))
                yield state

    def _read(self, state: State, run: str) -> None:
        campaign = state.folder.name
        if received := self._find(state, run, LIVE, Transferred):
            self.live[run] = campaign, received
        for folder in sorted(state.run(run).iterdir()):
            product = folder.name
            made = self._find(state, run, product, Processed) if folder.is_dir() and product != LIVE else None
            if made is None:
                continue
            stored = self._find(state, run, product, Stored)
            registered = state.path(run, product, Registered).is_file()
            for target in made.targets.values():
                self.made[target.folder] = _Made(campaign, run, product, target.bytes, stored, registered)
            if stored and made.source == LIVE and made.records_in is not None and made.records_in == made.records_out:
                self.whole[run] = f"{product} in {stored.location} (read back {stored.made:%F})"

    def _find(self, state: State, run: str, product: str, model: type[R]) -> R | None:
        try:
            return state.find(run, product, model)
        except (StraxflowError, OSError) as error:
            self.problems.append(str(error))
            return None

    def folders(self, measure: Callable[[Path], int | None]) -> Iterator[Folder]:
        """Every folder in live, staging, scratch and the store."""
        config = self.config
        places: Mapping[Kind, Path] = {
            "live": config.folders.live, "staging": config.folders.staging, "store": config.store.folder,
        }  # fmt: skip
        ours = {path.resolve() for path in (*places.values(), config.folders.scratch_folder)}
        for kind, folder in places.items():
            names = self.copies.names(kind, folder)
            if isinstance(names, str):
                self.problems.append(names)
                continue
            mounted = kind != "store" or config.store.ssh is None
            for name in sorted(names - {MARKER}):
                if mounted and (folder / name).resolve() in ours:
                    continue
                yield self._judged(kind, folder, name, measure if mounted else lambda _: None)
        scratch = config.folders.scratch_folder
        for path in sorted(scratch.iterdir()) if scratch.is_dir() else ():
            if path.name != MARKER:
                yield Folder("scratch", path.name, measure(path), *_leftover(path.name))

    def _judged(self, kind: Kind, folder: Path, name: str, measure: Callable[[Path], int | None]) -> Folder:
        if name.startswith((INCOMING, DIFFERS)):
            return Folder(kind, name, measure(folder / name), *_leftover(name))
        if kind == "live" and name in self.live:
            campaign, received = self.live[name]
            return Folder(kind, name, received.bytes, *self._live_fate(name, received), campaign, name, LIVE)
        if kind != "live" and (made := self.made.get(name)):
            fate = self._staging_fate(made) if kind == "staging" else self._store_fate(name, made)
            return Folder(kind, name, made.bytes, *fate, made.campaign, made.run, made.product)
        return Folder(kind, name, measure(folder / name), "unknown", "no receipt of any campaign knows it")

    def _live_fate(self, run: str, received: Transferred) -> tuple[Fate, str]:
        source = Path(received.source.removeprefix(f"{self.config.daq.ssh}:"))
        at_daq, why = self.copies.at("daq", source)
        if run not in self.whole:
            return "needed", "no stored product is known to hold every record"
        if at_daq != "there":
            return "needed", f"the DAQ's copy is {'not to be seen: ' + why if why else 'gone'}"
        elsewhere = f"{self.whole[run]}; the DAQ has {source} (to be compared when it is released)"
        if self.config.release.live == "keep":
            return "kept by configuration", f"release.live: keep; elsewhere: {elsewhere}"
        return "could be released", f"elsewhere: {elsewhere}"

    def _staging_fate(self, made: _Made) -> tuple[Fate, str]:
        if made.stored is None:
            return "needed", "not in the store yet"
        if not made.registered:
            return "needed", "not registered yet"
        elsewhere = f"elsewhere: {made.stored.location} (read back {made.stored.made:%F})"
        product = self.config.products.get(made.product)
        if self.config.release.staging == "keep" or (product and product.keep_staging):
            return "kept by configuration", elsewhere
        return "could be released", elsewhere

    def _store_fate(self, name: str, made: _Made) -> tuple[Fate, str]:
        if made.stored is None or name not in made.stored.folders:
            return "unknown", f"{made.product} of run {made.run} was made, but there is no receipt that it was stored"
        return "needed", "the site's copy"


def _leftover(name: str) -> tuple[Fate, str]:
    """Hidden names carry the token of who made them."""
    if name.startswith(DIFFERS):
        return "leftover", "set aside because a different one, or none, is there; compare them, and remove one by hand"
    owner = Owner.from_token("~".join(name.removeprefix(INCOMING).rsplit("~", 5)[-5:]))
    if owner is None:
        return "unknown", "hidden, and not of straxflow's making"
    who = f"{owner.host.partition('+')[0]} pid {owner.pid}"
    if owner_is_dead(name):
        return "leftover", f"scratch of {who}, which is dead; removed by the next attempt or the watcher"
    return "needed", f"scratch of {who}, which lives, or is on another host"


def size_of(path: Path) -> int | None:
    """Bytes below a path, following no link; what vanishes meanwhile is not counted. None if it cannot be read."""
    total = 0
    try:
        info = path.lstat()
        if not stat.S_ISDIR(info.st_mode):
            return info.st_size
        for entry in path.iterdir():
            total += size_of(entry) or 0
    except FileNotFoundError:
        return total
    except OSError:
        return None
    return total
