"""What Python itself costs the process that holds the workflow, of thousands of jobs."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Callable
from typing import Any


def collect_seldom() -> None:
    """Collection takes a sixth of the time of a large graph of jobs, and finds nothing in it."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def collect_no_more() -> None:
    """The interpreter would look through all of the graph once more, to end."""
    gc.freeze()


def with_signature(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, its parameters known: Snakemake looks them up for each job, which otherwise reads them anew."""
    function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return function
