"""How often the kernel has killed for lack of memory, where it tells."""

from __future__ import annotations

import re
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def oom_kills() -> int | None:
    """Processes that were killed for lack of memory, so far: in this process's control group, or else on this machine;
    None if neither can be read. Only a change of it means anything."""
    for file in [*_own_files(), Path("/proc/vmstat")]:
        try:
            found = re.search(r"^oom_kill (\d+)$", file.read_text(encoding="ascii"), re.M)
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
