"""The copies of a run's data that its receipts tell of, and whether they are there; `verify` reads them again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

from straxflow.config import LIVE, Config
from straxflow.digests import Difference, Manifest, describe, verify_tree
from straxflow.errors import StraxflowError
from straxflow.folders import open_store
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

    @cached_property
    def _in_store(self) -> set[str] | str:
        """Names in the store, or why they cannot be listed."""
        try:
            store = quick_store(self.config)
            store.check_marker("store", self.config.site)
            return set(store.names())
        except (StraxflowError, OSError) as error:
            return str(error)

    @cached_property
    def _at_daq(self) -> set[str] | str:
        try:
            return set(quick_daq(self.config).names())
        except (StraxflowError, OSError) as error:
            return str(error)

    def of(self, run: str) -> list[Copy]:
        """All copies of a run."""
        return [self._released(run, copy) for copy in self._of(run)]

    def verified(self, run: str) -> Iterator[Copy]:
        """The same, those that are there read again past the page cache, one after another."""
        for copy in self.of(run):
            yield self._verified(run, copy) if copy.there == "there" and copy.kind != "daq" else copy

    def at(self, kind: Kind, name: str) -> tuple[There, str | None]:
        """Whether there is something of this name in a place; say nothing of its content."""
        if kind in ("live", "staging"):
            folder = self.config.folders.live if kind == "live" else self.config.folders.staging
            try:
                (folder / name).stat()
            except FileNotFoundError:
                return "missing", None
            except OSError as error:
                return "unknown", error.strerror
            return "there", None
        names = self._at_daq if kind == "daq" else self._in_store
        if isinstance(names, str):
            return "unknown", names
        return ("there" if name in names else "missing"), None

    def _of(self, run: str) -> Iterator[Copy]:
        received = self._find(run, LIVE, Transferred)
        if received:
            yield Copy("daq", LIVE, received.source, received.bytes, *self.at("daq", run))
            yield Copy("live", LIVE, received.folder, received.bytes, *self.at("live", run))
        for product in self.config.products:
            made, stored = self._find(run, product, Processed), self._find(run, product, Stored)
            for target in made.targets.values() if made else ():
                folder = str(self.config.folders.staging / target.folder)
                yield Copy("staging", product, folder, target.bytes, *self.at("staging", target.folder))
            for name in stored.folders if stored else ():
                size = next((t.bytes for t in made.targets.values() if t.folder == name), 0) if made else 0
                place = f"{stored.location}/{name}" if stored else name
                yield Copy("store", product, place, size, *self.at("store", name))

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
            else:
                manifest = self.state.get(run, copy.product, Checksums).manifest.below(name)
                differences = self._again(copy, name, manifest)
            if copy.kind == "store":
                differences = self._tolerated(run, copy.product, name, differences)
        except (StraxflowError, OSError) as error:
            return replace(copy, there="unknown", why=f"not verified: {error}")
        if differences:
            return replace(copy, there="differs", why=describe(differences))
        return replace(copy, there="verified")

    def _again(self, copy: Copy, name: str, manifest: Manifest) -> list[Difference]:
        if copy.kind == "staging":
            return verify_tree(Path(copy.folder), manifest)
        return open_store(self.config).verify(name, manifest)

    def _tolerated(self, run: str, product: str, name: str, found: list[Difference]) -> list[Difference]:
        """Without the write times in the metadata of a copy that was adopted: it was made at another time."""
        if name not in self.state.get(run, product, Stored).adopted:
            return found
        return [d for d in found if d.kind == "missing" or not d.path.endswith("-metadata.json")]
