"""A store: a flat folder of products, each read back from disk before it got its name."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from straxflow.digests import Difference, Manifest, describe, verify_tree
from straxflow.errors import ConfigError, Damaged, StepFailed
from straxflow.fsio import INCOMING, differs_name, incoming_name, is_incoming_of, name_of_incoming, owner_is_dead
from straxflow.transport import ssh


@dataclass(frozen=True)
class Space:
    """Room on a disk, bytes; `free` is what we may still use."""

    free: int
    used: int

    @property
    def used_percent(self) -> float:
        """As df tells it."""
        return 100 * self.used / (self.free + self.used) if self.free + self.used else 100.0


def space_of(folder: Path) -> Space:
    """Room on the disk of a local folder."""
    found = os.statvfs(folder)
    return Space(found.f_bavail * found.f_frsize, (found.f_blocks - found.f_bfree) * found.f_frsize)


Tolerate = Callable[[Difference], bool]
"""Whether a difference between two makes of a product does not count (write times in metadata)."""


@dataclass(frozen=True)
class Stored:
    """The product stands in the store now."""

    name: str


@dataclass(frozen=True)
class Adopted:
    """The same product stood there already, but for what was tolerated in the `differing` files."""

    name: str
    differing: tuple[str, ...] = field(default=(), compare=False)


def _nothing(_: Difference) -> bool:
    return False


def _check_name(name: str) -> None:
    if not name or name.startswith((".", "-")) or "/" in name or any(c in name for c in "*?[]\\\n\r\0~"):
        raise ConfigError(f"{name!r}: not a possible name of a product folder")


class Store(ABC):
    """What both kinds of store do. Folder names in errors are as `where` says."""

    where: str

    @abstractmethod
    def check_marker(self, kind: str, site: str) -> None:
        """Raise StepFailed unless the folder carries this identity (missing, unmounted, another's)."""

    @abstractmethod
    def write_marker(self, kind: str, site: str) -> None:
        """Make the folder if it is missing, and mark it; once. Raises StepFailed if it is marked as another."""

    @abstractmethod
    def names(self) -> list[str]:
        """All names in the folder, hidden ones too. Raises StepFailed if there is no folder."""

    @abstractmethod
    def space(self) -> Space:
        """Room on its disk."""

    def free_bytes(self) -> int:
        """Free space for us, bytes."""
        return self.space().free

    @abstractmethod
    def read_file(self, name: str, path: str) -> bytes:
        """Content of a small file of a product."""

    @abstractmethod
    def manifest(self, name: str, algorithm: str) -> Manifest:
        """Digests of all files of a product, read there past the page cache."""

    @abstractmethod
    def _differences(self, name: str, manifest: Manifest, cold: bool) -> list[Difference]: ...

    @abstractmethod
    def _copy_in(self, source: Path, incoming: str, manifest: Manifest, reuse: Sequence[str]) -> list[Difference]:
        """Copy, flush, read back past the page cache, compare."""

    @abstractmethod
    def _rename(self, incoming: str, name: str) -> bool:
        """Rename and flush; False, and nothing done, if the name is taken."""

    @abstractmethod
    def _drop(self, incoming: str) -> None:
        """Remove one's own, or a dead owner's, incoming folder."""

    @abstractmethod
    def fetch(self, name: str, target: Path, manifest: Manifest) -> None:
        """Bring a product to a new private folder here, verified against its manifest.

        Raises:
            Damaged: if it is not there, or differs.
        """

    def exists(self, name: str) -> bool:
        """Whether something stands in the store under this name (say nothing of its content)."""
        _check_name(name)
        return name in self.names()

    def verify(self, name: str, manifest: Manifest, *, cold: bool = True) -> list[Difference]:
        """Read a product there again; with `cold` past the page cache. Empty: exactly the manifest's files.

        Raises:
            Damaged: if there is no such product.
        """
        if not self.exists(name):
            raise Damaged(f"{self.where}/{name}: is not there")
        return self._differences(name, manifest, cold)

    def put(self, source: Path, name: str, manifest: Manifest, tolerate: Tolerate = _nothing) -> Stored | Adopted:
        """Copy a folder to the store under a hidden name, read it back from disk, then give it its name.

        What an interrupted attempt left is used again, after being read. First one wins: a same product that
        is there already (but for differences that `tolerate` accepts) is adopted; a different one stays.

        Raises:
            Damaged: a different product is there, or the source is not as in its manifest.
            StepFailed: it reads back differently, twice.
            Retryable: not reachable, or full.
        """
        names = self.names()
        _check_name(name)
        if name in names:
            return self._adopt(source, name, manifest, tolerate)
        old = [n for n in names if is_incoming_of(n, name) and owner_is_dead(n)]
        incoming = incoming_name(name)
        named = False
        try:
            bad = self._copy_in(source, incoming, manifest, old)
            if bad:
                self._drop(incoming)
                self._check_source(source, manifest)
                bad = self._copy_in(source, incoming, manifest, [])
            if bad:
                raise StepFailed(f"{self.where}/{name}: reads back differently, twice: {describe(bad)}")
            named = True
            renamed = self._rename(incoming, name)
        except ssh.LostConnection:
            raise  # what arrived serves the next attempt, once this process is gone
        except BaseException:
            # another host may be just about to rename it: what is removed then might have its name already
            if not named:
                self._drop(incoming)
            raise
        for left in old if renamed else [*old, incoming]:
            self._drop(left)
        return Stored(name) if renamed else self._adopt(source, name, manifest, tolerate)

    def _check_source(self, source: Path, manifest: Manifest) -> None:
        if differences := verify_tree(source, manifest, cold=False):
            raise Damaged(f"{source}: changed since its manifest was made: {describe(differences)}")

    def _adopt(self, source: Path, name: str, manifest: Manifest, tolerate: Tolerate) -> Adopted:
        found = self._differences(name, manifest, cold=True)
        if differences := [d for d in found if not tolerate(d)]:
            raise Damaged(
                f"{self.where}/{name}: a different product is there already, and stays; {source} was not "
                f"stored. {describe(differences)}. Find out which is right and move the other away"
            )
        return Adopted(name, tuple(d.path for d in found))

    def set_aside(self, name: str) -> str:
        """Give a product's folder a hidden name, which is returned; nothing is removed."""
        hidden = differs_name(name)
        self._rename(name, hidden)
        return hidden

    def reap(self, only_replaced: bool = False) -> list[str]:
        """Remove the incoming folders whose owner is provably dead; returns their names.

        With `only_replaced`, only of products that stand in the store now: what arrived of others serves the next
        attempt.
        """
        names = set(self.names())
        dead = [n for n in sorted(names) if n.startswith(INCOMING) and owner_is_dead(n)]
        if only_replaced:
            dead = [n for n in dead if name_of_incoming(n) in names]
        for name in dead:
            self._drop(name)
        return dead
