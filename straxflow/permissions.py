"""The group and the modes of what straxflow writes, so that several people can operate a site."""

from __future__ import annotations

import grp
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from straxflow.config import Config
from straxflow.errors import ConfigError, StraxflowError


def apply_umask(config: Config) -> None:
    """Let this process, and all that it starts, write by the configured umask."""
    if config.permissions.umask is not None:
        os.umask(int(config.permissions.umask, 8))


def group_id(config: Config) -> int | None:
    """The number of the configured group.

    Raises:
        ConfigError: if there is no such group here, or this user is not in it.
    """
    name = config.permissions.group
    if name is None:
        return None
    try:
        group = grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(f"permissions.group: there is no group {name!r} on this host") from None
    if os.geteuid() != 0 and group not in (os.getegid(), *os.getgroups()):
        raise ConfigError(
            f"permissions.group: this user is not in group {name}; an admin adds it (usermod -aG {name} USER), and it "
            "counts after the next log-in"
        )
    return group


def wanted_mode(config: Config, mode: int) -> int:
    """The mode that a file or folder of this mode is to have: what its owner may, whom the umask lets may, too."""
    if config.permissions.umask is None:
        return mode
    owner = stat.S_IMODE(mode) & 0o700 | 0o600
    wanted = (owner | owner >> 3 | owner >> 6) & ~int(config.permissions.umask, 8)
    if stat.S_ISDIR(mode):
        wanted |= 0o700 | (stat.S_ISGID if config.permissions.group else 0)
    return wanted


def grant(config: Config, folder: Path) -> None:
    """Give a finished private folder of this process, and all in it, the configured group and modes.

    Programs and rsync keep modes of their own, whatever the umask is.
    """
    if config.permissions.group is None and config.permissions.umask is None:
        return
    group = group_id(config)
    for path in _all(folder):
        _set(config, path, group)


def give_folder(config: Config, folder: Path) -> bool:
    """Give a folder of the site (not what is in it) the configured group and modes; whether something changed.

    Raises:
        StraxflowError: if it belongs to somebody else, who must do it.
    """
    if config.permissions.group is None and config.permissions.umask is None:
        return False
    before = folder.stat()
    try:
        _set(config, folder, group_id(config))
    except PermissionError:
        mode = stat.S_IMODE(wanted_mode(config, before.st_mode))
        chgrp = f"chgrp {config.permissions.group} {folder}; " if config.permissions.group else ""
        raise StraxflowError(
            f"{folder}: {lacking(config, folder)}; it belongs to another user, who does: straxflow init, or "
            f"{chgrp}chmod {mode:o} {folder}"
        ) from None
    after = folder.stat()
    return (before.st_gid, before.st_mode) != (after.st_gid, after.st_mode)


def lacking(config: Config, path: Path) -> str | None:
    """What is wrong with the group or mode of a file or folder, in words; None if nothing is."""
    found = path.stat()
    group = group_id(config)
    if group is not None and found.st_gid != group:
        return f"belongs to group {_group_name(found.st_gid)}, not {config.permissions.group}"
    mode, wanted = stat.S_IMODE(found.st_mode), stat.S_IMODE(wanted_mode(config, found.st_mode))
    if missing := wanted & ~mode:
        words = "no setgid bit" if missing == stat.S_ISGID else f"mode {mode:o}, expected {wanted:o}"
        return f"has {words}"
    # an open door is as wrong as a closed one
    return f"has mode {mode:o}, expected {wanted:o}" if mode & 0o777 & ~wanted else None


def _set(config: Config, path: Path, group: int | None) -> None:
    info = path.lstat()
    if stat.S_ISLNK(info.st_mode):
        return
    if group is not None and info.st_gid != group:
        os.chown(path, -1, group)
    # a change of the group clears the setgid bit
    wanted = stat.S_IMODE(wanted_mode(config, info.st_mode))
    if stat.S_IMODE(path.stat().st_mode) != wanted:
        path.chmod(wanted)


def _all(folder: Path) -> Iterator[Path]:
    for where, _, files in os.walk(folder):
        yield Path(where)
        yield from (Path(where, name) for name in files)


def _group_name(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
