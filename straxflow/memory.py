"""Memory of processes: that what is freed is used again, and how often the kernel has killed for lack of any."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OOM_KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)
# of glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def reuse_freed() -> None:
    """Have this process keep what it frees, for what it needs next.

    Else the kernel clears new pages for each piece of data that it goes through: a tenth of strax' time, a quarter of
    the live-data check's. The peak is the same. C libraries other than glibc do as they do.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        for what, value in ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 1 << 30)):
            mallopt(what, value)


def oom_kills() -> int | None:
    """Processes that were killed for lack of memory, so far: in this process's control group, or else on this machine;
    None if neither can be read. Only a change of it means anything."""
    for file in [*_own_files(), Path("/proc/vmstat")]:
        try:
            found = _OOM_KILLS.search(file.read_text(encoding="ascii"))
        except OSError:
            continue
        if found:
            return int(found[1])
    return None


def _own_files() -> list[Path]:
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            found.append(_CGROUPS / path.lstrip("/") / "memory.events")
        elif "memory" in controllers.split(","):
            # in a container the path counts from the host's root, which is not there
            own = _CGROUPS / "memory" / path.lstrip("/")
            found += [own / "memory.oom_control", _CGROUPS / "memory" / "memory.oom_control"]
    return found
