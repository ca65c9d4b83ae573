"""Copies that were read back, and publication: the first one wins, nothing is replaced or merged."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from straxflow import uncached
from straxflow.digests import ALGORITHMS, FileDigest, Manifest, describe, digest_file, hash_tree
from straxflow.errors import Damaged, Retryable, StepFailed
from straxflow.fsio import (
    differs_name,
    fsync_folders,
    fsync_path,
    fsync_tree,
    incoming_name,
    naming,
    remove_tree,
    rename_noreplace,
)

Same = Callable[[Path, Path], bool]
"""Whether what stands at the destination (first) is the same product as the new one (second)."""


@dataclass(frozen=True)
class Published:
    """The new one stands at `path`."""

    path: Path


@dataclass(frozen=True)
class Adopted:
    """The same product stood at `path` already; the new one was removed."""

    path: Path


@dataclass(frozen=True)
class SetAside:
    """A different product stands at `path`; the new one waits, hidden, at `aside`."""

    path: Path
    aside: Path


def _filled(read: io.FileIO, buffer: memoryview) -> memoryview:
    """The next part of a file: all of the buffer, but for its end."""
    held = 0
    while held < len(buffer) and (count := read.readinto(buffer[held:])):
        held += count
    return buffer[:held]


def _copy_file(source: Path, target: Path, algorithm: str) -> tuple[int, str]:
    hasher = ALGORITHMS[algorithm]()
    size = 0
    with naming(source), source.open("rb", buffering=0) as read, uncached.buffer() as buffer:
        info = os.fstat(read.fileno())
        with target.open("xb", buffering=0) as write:
            if info.st_size >= uncached.SMALL:
                uncached.pass_cache(write.fileno())
            while part := _filled(read, buffer):
                hasher.update(part)
                with naming(target):
                    uncached.write(write.fileno(), part)
                size += len(part)
            os.fchmod(write.fileno(), info.st_mode & 0o777)
            os.utime(write.fileno(), ns=(info.st_atime_ns, info.st_mtime_ns))
    return size, hasher.hexdigest()


def _bring(source: Path, target: Path, file: FileDigest, algorithm: str, reuse: Sequence[Path]) -> None:
    """One file into `target`, verified past the page cache; a same one of an earlier attempt is linked."""
    for old in reuse:
        candidate = old / file.path
        try:
            if candidate.is_symlink() or candidate.stat().st_size != file.size:
                continue
            if digest_file(old, file.path, algorithm, cold=True) == file:
                (target / file.path).hardlink_to(candidate)
                return
        except OSError:
            continue  # whatever is wrong with the old one, the source still has it
    if (source / file.path).is_symlink() or not (source / file.path).is_file():
        raise Damaged(f"{source / file.path}: changed since its manifest was made: it is no file any more")
    size, digest = _copy_file(source / file.path, target / file.path, algorithm)
    if (size, digest) != (file.size, file.digest):
        raise Damaged(
            f"{source / file.path}: changed since its manifest was made: found {size} bytes, {digest}, "
            f"expected {file.size} bytes, {file.digest}"
        )
    found = digest_file(target, file.path, algorithm, cold=True)
    if found != file:
        raise StepFailed(
            f"{target / file.path}: read back differently: found {found.size} bytes, {found.digest}, "
            f"expected {file.size} bytes, {file.digest}: check that disk"
        )


def copy_tree(source: Path, target: Path, manifest: Manifest, *, reuse: Sequence[Path] = (), threads: int = 4) -> None:
    """Copy a manifest's files to a new folder, flush them, read them back from disk and compare.

    Raises:
        Damaged: if the source is not what the manifest says.
        StepFailed: if the copy reads back differently.
        Retryable: if the disk is full; the copy is removed.
    """
    target.mkdir()
    try:
        for folder in sorted({str(Path(f.path).parent) for f in manifest.files}):
            (target / folder).mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(threads) as pool:
            futures = [pool.submit(_bring, source, target, f, manifest.algorithm, reuse) for f in manifest.files]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        fsync_folders(target)
    except OSError as error:
        remove_tree(target)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Retryable(
                f"{target.parent}: disk full ({error.strerror}) copying {source}, {manifest.bytes} bytes"
                ": free some space"
            ) from error
        raise
    except BaseException:
        remove_tree(target)
        raise


def _settle(candidate: Path, final: Path, same: Same) -> Adopted | SetAside:
    if final.is_symlink() or not final.is_dir():
        raise Damaged(f"{final}: is there but is no folder; {candidate} was not published")
    if same(final, candidate):
        remove_tree(candidate)
        return Adopted(final)
    aside = final.parent / differs_name(final.name)
    rename_noreplace(candidate, aside)
    fsync_path(final.parent)
    return SetAside(final, aside)


def publish(source: Path, final: Path, same: Same, *, flushed: bool = False) -> Published | Adopted | SetAside:
    """Move a finished private folder to its final name; its parent must exist. The first one wins.

    All of it is flushed to its disk before, unless it is `flushed` already. On another filesystem it is copied beside
    the final name, read back from disk and compared first. `source` is gone afterwards.

    Raises:
        StepFailed, Damaged, Retryable: see `copy_tree`; then `source` is still there.
    """
    if source.stat().st_dev == final.parent.stat().st_dev:
        if not flushed:
            fsync_tree(source)
        try:
            return _name(source, final, same)
        except OSError as error:
            # a disk that is mounted twice is one device
            if error.errno != errno.EXDEV:
                raise
    candidate = final.parent / incoming_name(final.name)
    copy_tree(source, candidate, hash_tree(source))
    try:
        outcome = _name(candidate, final, same)
    except BaseException:
        remove_tree(candidate)
        raise
    remove_tree(source)
    return outcome


def _name(candidate: Path, final: Path, same: Same) -> Published | Adopted | SetAside:
    try:
        rename_noreplace(candidate, final)
    except FileExistsError:
        return _settle(candidate, final, same)
    fsync_path(final.parent)
    return Published(final)


def must_be_whole(folder: Path, manifest: Manifest, found: Sequence[FileDigest]) -> None:
    """Raise Damaged, naming what differs, unless the files are exactly the manifest's."""
    if differences := manifest.differences(found):
        raise Damaged(f"{folder}: differs from its manifest: {describe(differences)}")
