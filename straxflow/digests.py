"""Digests of files, and manifests that standard tools can check."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Protocol, Self

import xxhash

from straxflow import uncached
from straxflow.errors import Damaged
from straxflow.fsio import naming, walk_files, write_back

THREADS = 2
FOR_ONE_THREAD = 16 << 20
"""Fewer bytes than these are read by one thread before others are at work."""

# Manifest.bytes is a property, so annotations inside that class need the type under another name
Bytes = bytes


class Hasher(Protocol):
    """What hashlib and xxhash have in common."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take more data."""

    def hexdigest(self) -> str:
        """The digest in lower-case hexadecimal."""


ALGORITHMS: dict[str, Callable[[], Hasher]] = {"xxh128": xxhash.xxh3_128, "sha256": hashlib.sha256}


@dataclass(frozen=True, order=True)
class FileDigest:
    """One file: path relative to its folder (with slashes), size in bytes, hexadecimal digest."""

    path: str
    size: int
    digest: str


@dataclass(frozen=True)
class Difference:
    """How a file differs from a manifest. `kind` is missing, surplus, size, digest, or type (a link, a pipe)."""

    path: str
    kind: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.path!r}: {self.kind}: found {self.found}, expected {self.expected}"


def digest_file(
    folder: Path, path: str, algorithm: str = "xxh128", *, cold: bool = False, sync: bool = False, write: bool = False
) -> FileDigest:
    """Size and digest of one file of a folder. `sync` flushes it to disk first; `cold` too, and reads past the page
    cache; `write` writes it, as `write_back` does."""
    where = f"{folder}/{path}"
    hasher, size = ALGORITHMS[algorithm](), 0
    with naming(where):
        # of a small file, a Path or a file object would take as long as all the rest
        fd = os.open(where, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if cold or sync:
                os.fsync(fd)
            elif write:
                write_back(fd)
            if cold:
                # only clean pages can be dropped, hence after the fsync
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            there = os.fstat(fd).st_size
            for piece in _small(fd, there) if there < uncached.SMALL else uncached.pieces(fd, past=cold):
                hasher.update(piece)
                size += len(piece)
        finally:
            os.close(fd)
    return FileDigest(path, size, hasher.hexdigest())


def _small(fd: int, size: int) -> Iterator[bytes]:
    """What a file of about that size holds: at once, as a rule."""
    # one byte more sees its end, or its growth
    while piece := os.read(fd, size + 1 if size >= 0 else uncached.CACHED):
        yield piece
        size -= len(piece)
        if size == 0:
            return


def _check_path(path: str) -> None:
    # a Path takes five times as long
    if not {"", ".", ".."}.isdisjoint(path.split("/")) or "\0" in path:
        raise Damaged(f"manifest: {path!r} is not a plain relative path")


def _escape(path: bytes) -> tuple[bytes, bytes]:
    escaped = path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return (b"\\" if escaped != path else b""), escaped


def _unescape(path: bytes) -> bytes:
    out = bytearray()
    pairs = {ord("n"): 10, ord("r"): 13, ord("\\"): 92}
    letters = iter(path)
    for letter in letters:
        out.append(pairs[next(letters)] if letter == 92 else letter)
    return bytes(out)


@dataclass(frozen=True)
class Manifest:
    """The files that a folder must hold, exactly; sorted by path."""

    algorithm: str
    files: tuple[FileDigest, ...]

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise Damaged(f"manifest: unknown algorithm {self.algorithm!r}; known: {', '.join(ALGORITHMS)}")
        object.__setattr__(self, "files", tuple(sorted(self.files)))
        for file in self.files:
            _check_path(file.path)
        for one, two in zip(self.files, self.files[1:], strict=False):
            if one.path == two.path:
                raise Damaged(f"manifest: {one.path!r} stands in it twice")

    @classmethod
    def from_rows(cls, algorithm: str, rows: Iterable[tuple[str, int, str]]) -> Self:
        """From (path, size, digest) rows, as receipts hold them."""
        return cls(algorithm, tuple(FileDigest(*row) for row in rows))

    @property
    def rows(self) -> list[tuple[str, int, str]]:
        """The files as (path, size, digest)."""
        return [(f.path, f.size, f.digest) for f in self.files]

    @property
    def bytes(self) -> int:
        """Total size."""
        return sum(f.size for f in self.files)

    @property
    def by_path(self) -> dict[str, FileDigest]:
        """The files by path."""
        return {f.path: f for f in self.files}

    def below(self, prefix: str) -> Manifest:
        """The files under a folder of this one, with paths relative to it."""
        start = prefix.rstrip("/") + "/"
        found = [(f.path.removeprefix(start), f.size, f.digest) for f in self.files if f.path.startswith(start)]
        return Manifest.from_rows(self.algorithm, found)

    @property
    def digest(self) -> str:
        """One digest for all files, as `algorithm:hexadecimal`."""
        hasher = ALGORITHMS[self.algorithm]()
        hasher.update(self.to_list())
        return f"{self.algorithm}:{hasher.hexdigest()}"

    @property
    def fingerprint(self) -> str:
        """One digest for all data files; strax metadata, which hold write times, are left out."""
        data = tuple(f for f in self.files if not f.path.endswith("-metadata.json"))
        return Manifest(self.algorithm, data).digest.partition(":")[2]

    def to_list(self) -> Bytes:
        """The list that `xxhsum -c` (or `sha256sum -c`) checks inside the folder; it has no sizes."""
        lines = []
        for file in self.files:
            mark, path = _escape(os.fsencode(file.path))
            lines.append(mark + file.digest.encode() + b"  " + path + b"\n")
        return b"".join(lines)

    @classmethod
    def from_list(cls, algorithm: str, data: Bytes, sizes: dict[str, int]) -> Self:
        """Read such a list again; sizes in bytes by path come from elsewhere.

        Raises:
            Damaged: if a line can't be read or a size is missing.
        """
        rows = []
        for number, line in enumerate(data.split(b"\n")[:-1], 1):
            digest, gap, name = line.removeprefix(b"\\").partition(b"  ")
            try:
                path = os.fsdecode(_unescape(name) if line.startswith(b"\\") else name)
                if not gap or len(digest) != len(ALGORITHMS[algorithm]().hexdigest()):
                    raise ValueError
                rows.append((path, sizes[path], bytes.fromhex(digest.decode()).hex()))
            except (ValueError, KeyError, RuntimeError, StopIteration):
                raise Damaged(f"hash list, line {number}: not readable: {line[:120]!r}") from None
        if not data.endswith(b"\n") and data:
            raise Damaged("hash list: cut short, its last line has no end")
        return cls.from_rows(algorithm, rows)

    def differences(self, found: Iterable[FileDigest]) -> list[Difference]:
        """How files differ from what this manifest says, by path."""
        expected, there = self.by_path, {f.path: f for f in found}
        out = []
        for path in sorted(expected.keys() | there.keys()):
            want, have = expected.get(path), there.get(path)
            if have is None and want is not None:
                out.append(Difference(path, "missing", "nothing", f"{want.size} bytes"))
            elif want is None and have is not None:
                out.append(Difference(path, "surplus", f"{have.size} bytes", "nothing"))
            elif want and have and want.size != have.size:
                out.append(Difference(path, "size", f"{have.size} bytes", f"{want.size} bytes"))
            elif want and have and want.digest != have.digest:
                out.append(Difference(path, "digest", have.digest, want.digest))
        return out


def hash_files(
    folder: Path,
    paths: Sequence[str],
    algorithm: str = "xxh128",
    *,
    cold: bool = False,
    threads: int = THREADS,
) -> list[FileDigest]:
    """Digests of some files of a folder; memory does not grow with the files' sizes."""

    def digests_of(portion: Sequence[str]) -> list[FileDigest]:
        return [digest_file(folder, path, algorithm, cold=cold) for path in portion]

    if threads == 1:
        return digests_of(paths)
    # to hand over a small file takes longer than to hash it
    many = len(paths) // (16 * threads) + 1
    portions = [paths[at : at + many] for at in range(0, len(paths), many)]
    with ThreadPoolExecutor(threads) as pool:
        return [digest for done in pool.map(digests_of, portions) for digest in done]


def hash_tree(folder: Path, algorithm: str = "xxh128", *, cold: bool = False, threads: int = THREADS) -> Manifest:
    """Manifest of all files below a folder (see `walk_files` for what it refuses)."""
    files = walk_files(folder)
    if sum(size for _, size in files) < FOR_ONE_THREAD:
        threads = 1
    paths = [path for path, _ in files]
    return Manifest(algorithm, tuple(hash_files(folder, paths, algorithm, cold=cold, threads=threads)))


def hasher_of(folder: Path, threads: int = THREADS) -> Callable[[str], Manifest]:
    """Gives the manifest of a folder by any algorithm; for each it is read once."""
    return cache(partial(hash_tree, folder, threads=threads))


def verify_tree(folder: Path, manifest: Manifest, *, cold: bool = True, threads: int = THREADS) -> list[Difference]:
    """Read all files of a folder again and compare; an empty list means exactly the manifest's files.

    Raises:
        FileNotFoundError: if there is no such folder.
    """
    try:
        return manifest.differences(hash_tree(folder, manifest.algorithm, cold=cold, threads=threads).files)
    except Damaged as error:
        return [Difference(".", "type", str(error), "files and folders")]


def describe(differences: Sequence[Difference], most: int = 5) -> str:
    """The first few differences in words."""
    more = f"; and {len(differences) - most} more" if len(differences) > most else ""
    return "; ".join(map(str, differences[:most])) + more
