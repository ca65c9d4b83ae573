"""What a server loads before its jobs, so that no job has to."""

from __future__ import annotations

import gc
import importlib
from pathlib import Path
from typing import Any

THREADS = "straxflow: what was imported started threads, so each job starts by itself"


def load(name: str) -> Any:
    """Import `module`, call `module:function`, or give the function of `module:function:`."""
    module, _, function = name.partition(":")
    found = importlib.import_module(module)
    if not function:
        return found
    wanted = getattr(found, function.rstrip(":"))
    return wanted if function.endswith(":") else wanted()


def settle() -> None:
    """What is loaded stays: a fork that looked for garbage in it would copy all of its memory."""
    gc.collect()
    gc.freeze()
    gc.enable()


def single_threaded() -> bool:
    """Whether this process has one thread only: locks that others hold would stay locked in a fork for ever."""
    return len(list(Path("/proc/self/task").iterdir())) == 1
