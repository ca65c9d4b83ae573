"""Files that are either wholly there, on disk, or not there at all; folders that prove who they are."""

from __future__ import annotations

import ctypes
import errno
import json
import logging
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from straxflow.errors import Damaged, NotMounted, StepFailed
from straxflow.owner import Owner

log = logging.getLogger(__name__)

INCOMING = ".incoming-"
DIFFERS = ".differs-"
MARKER = ".straxflow.json"

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_libc = ctypes.CDLL(None, use_errno=True)
_WRITE_AND_WAIT = 7  # SYNC_FILE_RANGE_WAIT_BEFORE, _WRITE, _WAIT_AFTER


def token() -> str:
    """A new unique name that says which process owns it; `owner_is_dead` reads it."""
    return Owner.current().token()


def owner_is_dead(name: str) -> bool:
    """True only if the owner named by a token, or by a hidden name ending in one, is provably gone."""
    owner = Owner.from_token("~".join(name.removeprefix(INCOMING).rsplit("~", 5)[-5:]))
    return owner is not None and owner.is_dead()


def incoming_name(name: str = "") -> str:
    """A new hidden name for something that is on its way to `name`, owned by this process."""
    return f"{INCOMING}{name}~{token()}" if name else f"{INCOMING}{token()}"


def name_of_incoming(hidden: str) -> str:
    """The name to which something is on its way that has a name by `incoming_name(name)`."""
    return hidden.removeprefix(INCOMING).rsplit("~", 5)[0]


def differs_name(name: str) -> str:
    """A new hidden name for what is set aside beside `name`, also if that is a hidden one itself; it is for a person,
    and nothing here removes it."""
    return f"{DIFFERS}{name_of_incoming(name) if name.startswith(INCOMING) else name}~{token()}"


def set_aside(folder: Path) -> Path:
    """Give a folder such a name, where it now stands; nothing is removed."""
    return folder.rename(folder.with_name(differs_name(folder.name)))


def is_incoming_of(hidden: str, name: str) -> bool:
    """Whether a hidden name was made by `incoming_name(name)`, in whatever process."""
    parts = hidden.rsplit("~", 5)
    return parts[0] == INCOMING + name and len(parts) == 6


class naming:
    """Let errors of the system in the block name this file: of reads, writes and flushes they name none."""

    # not contextlib's, which takes as long as to open a small file
    __slots__ = ("path",)

    def __init__(self, path: Path | str) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = os.fspath(self.path)


def fsync_path(path: Path | str) -> None:
    """Flush one file or folder to disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with naming(path):
            os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, data: bytes, mode: int = 0o666, new: bool = False) -> bool:
    """Write a file so that a reader or a crash sees the old content or the new, never a part.

    Same content as before: only the modification time changes. `mode` is what the umask allows at most. True if it was
    written.

    Raises:
        FileExistsError: if other content stands there already, and a `new` file was to be written.
    """
    path = Path(path)
    try:
        if path.read_bytes() == data:
            os.utime(path)
            return False
    except FileNotFoundError:
        pass
    temp = path.parent / incoming_name(path.name[:80])
    # not mkstemp: the umask decides who may read it
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with naming(path), os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if new:
            rename_noreplace(temp, path)
        else:
            temp.rename(path)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise
    fsync_path(path.parent)
    return True


def _walk(folder: str, relative: str) -> Iterator[tuple[str, int]]:
    with os.scandir(f"{folder}/{relative}" if relative else folder) as entries:
        for entry in entries:
            name = f"{relative}/{entry.name}" if relative else entry.name
            info = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                yield from _walk(folder, name)
            elif stat.S_ISREG(info.st_mode):
                yield name, info.st_size
            else:
                what = "a symbolic link" if stat.S_ISLNK(info.st_mode) else "not a regular file"
                raise Damaged(f"{folder}: {name!r} is {what}; data folders hold only files and folders")


def walk_files(folder: Path) -> list[tuple[str, int]]:
    """All files below a folder, sorted: relative path with slashes (odd bytes as surrogates), size in bytes.

    Raises:
        FileNotFoundError, NotADirectoryError: if there is no such folder.
        Damaged: at a symbolic link, device, pipe or socket.
    """
    return sorted(_walk(os.fspath(folder), ""))


def fsync_tree(folder: Path) -> None:
    """Flush all files and folders of a tree, and the tree's own name, to disk."""
    fsync_folders(folder, files=True)
    fsync_path(Path(folder).parent)


def fsync_folders(folder: Path, files: bool = False) -> None:
    """Flush all folders of a tree (where the names of files stand), innermost first."""

    def fail(error: OSError) -> None:
        raise error

    for where, _, names in os.walk(folder, topdown=False, onerror=fail):
        if files:
            for name in names:
                fsync_path(f"{where}/{name}")
        fsync_path(where)


def sync_filesystem(folder: Path) -> None:
    """Flush all of the filesystem that a folder stands on: for thousands of files faster than one by one."""
    if not hasattr(_libc, "syncfs"):
        fsync_tree(folder)
        return
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(fd) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), os.fspath(folder))
    finally:
        os.close(fd)


def write_back(fd: int) -> None:
    """Write what memory holds of an open file, and fail if that fails, or failed before unseen, as fsync would; but
    leave it to a `sync_filesystem` afterwards, one for thousands of files, to flush the disk's own cache."""
    code = errno.ENOSYS
    if hasattr(_libc, "sync_file_range"):
        if _libc.sync_file_range(fd, ctypes.c_int64(0), ctypes.c_int64(0), _WRITE_AND_WAIT) == 0:
            return
        code = ctypes.get_errno()
    if code not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        raise OSError(code, os.strerror(code))
    os.fsync(fd)


def rename_noreplace(source: Path | str, target: Path | str) -> None:
    """Rename, but never onto anything, not even onto an empty folder.

    Raises:
        FileExistsError: if the target exists.
    """
    result = -1
    code = errno.ENOSYS
    if hasattr(_libc, "renameat2"):
        result = _libc.renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE)
        code = ctypes.get_errno()
    if result == 0:
        return
    if code not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        raise OSError(code, os.strerror(code), os.fspath(source), None, os.fspath(target))
    # NFS and some others can't. A file gets its name as a second one, which replaces nothing; of folders, what slips
    # in between check and rename can only be an empty one
    if stat.S_ISREG(os.lstat(source).st_mode) and _linked(source, target):
        return
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(target))
    try:
        Path(source).rename(target)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(target)) from None
        raise


def _linked(source: Path | str, target: Path | str) -> bool:
    """Give a file another name, and take the first one; False if this filesystem knows no second names.

    Raises:
        FileExistsError: if the target exists.
    """
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:
        return False
    Path(source).unlink()
    return True


def move_content(source: Path, target: Path) -> None:
    """Move what stands in a folder, and in those in it, to another one of its filesystem, where nothing is replaced.

    A program that outlived its owner, and still works in `source`, does not find there what was moved. What cannot be
    moved stays, and so does `source` then; if it is not there any more, there is nothing to do.
    """
    with suppress(OSError):
        for name in os.listdir(source):  # noqa: PTH208  (thousands of them: a Path takes as long as its renaming)
            here, there = f"{source}/{name}", f"{target}/{name}"
            try:
                rename_noreplace(here, there)
            except FileExistsError:
                if all(Path(one).is_dir() and not Path(one).is_symlink() for one in (here, there)):
                    move_content(Path(here), Path(there))
        source.rmdir()


def _open_up(folder: Path) -> None:
    """Let this user change all folders of a tree."""
    folder.chmod(0o700)
    # from above: what is opened here is looked into next
    for where, names, _ in os.walk(folder):
        for name in names:
            path = Path(where, name)
            if not path.is_symlink():
                path.chmod(0o700)


def remove_tree(folder: Path) -> None:
    """Remove a scratch tree; gone already is fine.

    Raises:
        StepFailed: if something of it is still there afterwards.
    """
    try:
        if folder.is_symlink():
            # what it leads to is somebody else's
            folder.unlink()
            return
        try:
            shutil.rmtree(folder)
        except PermissionError:
            # programs make folders that nobody may write to, themselves included
            _open_up(folder)
            shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StepFailed(f"{folder}: could not be removed: {error}") from error


def reap(folder: Path, prefix: str = INCOMING) -> list[Path]:
    """Remove the scratch in a folder whose owner is provably dead; returns what was removed. The rest is in nobody's
    way."""
    removed = []
    for path in sorted(Path(folder).iterdir()):
        if path.name.startswith(prefix) and owner_is_dead(path.name.removeprefix(prefix)):
            try:
                if path.is_dir():
                    remove_tree(path)
                else:
                    path.unlink(missing_ok=True)
            except (StepFailed, OSError) as error:
                log.warning("left by a dead process: %s", error)
                continue
            removed.append(path)
    return removed


def bring_back(folder: Path, latest: Path) -> list[Path]:
    """Let no JSON file of a tree be newer than the one just written, and name those that were.

    Snakemake refuses what it makes from an input of the future, and would make it again next time.
    """
    now = latest.stat().st_mtime_ns
    early = [path for path in folder.rglob("*.json") if path.stat().st_mtime_ns > now]
    for path in early:
        os.utime(path, ns=(now, now))
    return early


def marker_text(kind: str, site: str) -> bytes:
    """Content of the identity marker of a folder."""
    return json.dumps({"straxflow": 1, "kind": kind, "site": site}).encode() + b"\n"


def judge_marker(where: str, content: bytes | None, kind: str, site: str) -> None:
    """Compare the content of a folder's marker (None: there is none) with what it must say.

    Raises:
        NotMounted: if there is none.
        StepFailed: with what was found and what to do.
    """
    if content is None:
        raise NotMounted(
            f"{where}: has no identity marker {MARKER}: is the disk mounted? Expected the {kind} of site "
            f"{site}; if the folder is new, mark it once (straxflow init)"
        )
    try:
        found = json.loads(content)
        kind_found, site_found = found["kind"], found["site"]
    except (ValueError, KeyError, TypeError):
        raise StepFailed(f"{where}: its identity marker {MARKER} is not readable: {content[:80]!r}") from None
    if (kind_found, site_found) != (kind, site):
        raise StepFailed(
            f"{where}: is the {kind_found} of site {site_found}, expected the {kind} of site {site}: "
            "correct the path in the configuration, or the mount"
        )


def check_marker(folder: Path, kind: str, site: str) -> None:
    """Make sure that a folder is the one it is taken for.

    Raises:
        NotMounted: no such folder, or no marker.
        StepFailed: another's marker.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotMounted(
            f"{folder}: no such folder (the {kind} of site {site}): is the disk mounted? If it is new: straxflow init"
        )
    try:
        content = (folder / MARKER).read_bytes()
    except FileNotFoundError:
        content = None
    judge_marker(str(folder), content, kind, site)


def write_marker(folder: Path, kind: str, site: str) -> None:
    """Mark a folder, which must exist, as the `kind` (state, staging, store, ...) of a site; once.

    Raises:
        StepFailed: if it is missing or marked as something else.
    """
    folder = Path(folder)
    if (folder / MARKER).exists() or not folder.is_dir():
        check_marker(folder, kind, site)
    else:
        write_atomic(folder / MARKER, marker_text(kind, site))
