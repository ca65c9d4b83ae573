"""The copies of a run's data that its receipts tell of, and whether they are there; `verify` reads them again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar

from straxflow.config import LIVE, Config
from straxflow.digests import Difference, describe, verify_tree
from straxflow.errors import StraxflowError
from straxflow.folders import open_store
from straxflow.fsio import check_marker
from straxflow.receipts import Checksums, Processed, Receipt, Released, State, Stored, Transferred, read
from straxflow.reports.places import quick_daq, quick_store

R = TypeVar("R", bound=Receipt)
Kind = Literal["daq", "live", "staging", "store"]
There = Literal["there", "verified", "dropped", "missing", "differs", "unknown"]


@dataclass(frozen=True)
class Copy:
    """One copy of the live data or of a data type. `why`: what is known of a copy that is not simply there."""

    kind: Kind
    product: str
    folder: str
    bytes: int
    there: There
    why: str | None = None


@dataclass
class Copies:
    """Looks for copies; each place is listed once, for all runs."""

    config: Config
    state: State
    _listed: dict[tuple[Kind, Path], set[str] | str] = field(default_factory=dict, init=False)

    def names(self, kind: Kind, folder: Path) -> set[str] | str:
        """The names in a place, or why they cannot be told: an unmounted disk must not look like an empty one."""
        if (kind, folder) not in self._listed:
            try:
                self._listed[kind, folder] = set(self._list(kind, folder))
            except (StraxflowError, OSError) as error:
                self._listed[kind, folder] = str(error)
        return self._listed[kind, folder]

    def _list(self, kind: Kind, folder: Path) -> Iterable[str]:
        if kind == "daq":
            return quick_daq(self.config, folder).names()
        if kind == "store":
            store = quick_store(self.config)
            store.check_marker("store", self.config.site)
            return store.names()
        check_marker(folder, kind, self.config.site)
        return (path.name for path in folder.iterdir())

    def of(self, run: str) -> list[Copy]:
        """All copies of a run."""
        return [self._released(run, copy) for copy in self._of(run)]

    def verified(self, run: str) -> Iterator[Copy]:
        """The same, those that are there read again past the page cache, one after another."""
        for copy in self.of(run):
            yield self._verified(run, copy) if copy.there == "there" and copy.kind != "daq" else copy

    def at(self, kind: Kind, place: Path) -> tuple[There, str | None]:
        """Whether there is something in this place; say nothing of its content."""
        if kind == "store" and place.parent != self.config.store.folder:
            return "unknown", "this is not the store of the configuration"
        names = self.names(kind, place.parent)
        if isinstance(names, str):
            return "unknown", names
        return ("there" if place.name in names else "missing"), None

    def _of(self, run: str) -> Iterator[Copy]:
        received = self._find(run, LIVE, Transferred)
        if received:
            at_daq = received.source.removeprefix(f"{self.config.daq.ssh}:")
            yield self._copy("daq", LIVE, Path(at_daq), received.bytes)
            yield self._copy("live", LIVE, self.config.folders.live / run, received.bytes)
        for product in self.config.products:
            made, stored = self._find(run, product, Processed), self._find(run, product, Stored)
            for target in made.targets.values() if made else ():
                yield self._copy("staging", product, self.config.folders.staging / target.folder, target.bytes)
            for name in stored.folders if stored else ():
                size = next((t.bytes for t in made.targets.values() if t.folder == name), 0) if made else 0
                yield self._copy("store", product, Path(stored.location) / name if stored else Path(name), size)

    def _copy(self, kind: Kind, product: str, place: Path, size: int) -> Copy:
        return Copy(kind, product, str(place), size, *self.at(kind, place))

    def _find(self, run: str, product: str, model: type[R]) -> R | None:
        try:
            return self.state.find(run, product, model)
        except (StraxflowError, OSError):
            return None  # it is told with the receipts

    def _released(self, run: str, copy: Copy) -> Copy:
        if copy.there != "missing":
            return copy
        try:
            told: Mapping[str, str] = read(self.state.released(run), Released, run).dropped
        except (StraxflowError, OSError):
            return copy
        return replace(copy, there="dropped", why=told[copy.folder]) if copy.folder in told else copy

    def _verified(self, run: str, copy: Copy) -> Copy:
        name = Path(copy.folder).name
        try:
            if copy.kind == "live":
                manifest = self.state.get(run, LIVE, Transferred).manifest
                differences = verify_tree(Path(copy.folder), manifest)
            elif copy.kind == "staging":
                manifest = self.state.get(run, copy.product, Checksums).manifest
                differences = verify_tree(Path(copy.folder), manifest.below(name))
            else:
                differences = self._in_store(run, copy.product, name)
        except (StraxflowError, OSError) as error:
            return replace(copy, there="unknown", why=f"not verified: {error}")
        if differences:
            return replace(copy, there="differs", why=describe(differences))
        return replace(copy, there="verified")

    def _in_store(self, run: str, product: str, name: str) -> list[Difference]:
        sums = self.state.get(run, product, Checksums)
        stored = self.state.get(run, product, Stored)
        found = open_store(self.config).verify(name, stored.manifest(sums).below(name))
        if not stored.tells_other_times(name):
            return found
        return [d for d in found if d.kind == "missing" or not d.path.endswith("-metadata.json")]
