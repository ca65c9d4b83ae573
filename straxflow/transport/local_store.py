"""A store in a folder of this host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from straxflow.digests import Difference, Manifest, hash_tree, verify_tree
from straxflow.errors import Damaged, NotMounted
from straxflow.fsio import check_marker, fsync_path, remove_tree, rename_noreplace, write_marker
from straxflow.publish import copy_tree
from straxflow.transport.store import Space, Store, space_of


@dataclass(frozen=True)
class LocalStore(Store):
    """A store in a folder of this host."""

    folder: Path

    @property
    def where(self) -> str:  # type: ignore[override]  # read only is enough
        """The folder."""
        return str(self.folder)

    def check_marker(self, kind: str, site: str) -> None:  # noqa: D102
        check_marker(self.folder, kind, site)

    def write_marker(self, kind: str, site: str) -> None:  # noqa: D102
        self.folder.mkdir(parents=True, exist_ok=True)
        write_marker(self.folder, kind, site)

    def names(self) -> list[str]:  # noqa: D102
        try:
            return sorted(p.name for p in self.folder.iterdir())
        except OSError as error:
            raise NotMounted(f"{self.folder}: can't be listed: {error.strerror}: is the disk mounted?") from error

    def space(self) -> Space:  # noqa: D102
        return space_of(self.folder)

    def read_file(self, name: str, path: str) -> bytes:  # noqa: D102
        return (self.folder / name / path).read_bytes()

    def manifest(self, name: str, algorithm: str) -> Manifest:  # noqa: D102
        return hash_tree(self.folder / name, algorithm, cold=True)

    def _differences(self, name: str, manifest: Manifest, cold: bool) -> list[Difference]:
        return verify_tree(self.folder / name, manifest, cold=cold)

    def _copy_in(self, source: Path, incoming: str, manifest: Manifest, reuse: Sequence[str]) -> list[Difference]:
        copy_tree(source, self.folder / incoming, manifest, reuse=[self.folder / old for old in reuse])
        return []

    def _rename(self, incoming: str, name: str) -> bool:
        try:
            rename_noreplace(self.folder / incoming, self.folder / name)
        except FileExistsError:
            return False
        fsync_path(self.folder)
        return True

    def _drop(self, incoming: str) -> None:
        remove_tree(self.folder / incoming)

    def fetch(self, name: str, target: Path, manifest: Manifest) -> None:  # noqa: D102
        if not self.exists(name):
            raise Damaged(f"{self.where}/{name}: is not there")
        copy_tree(self.folder / name, target, manifest)
