"""Garbage collection of the process that holds the workflow: thousands of jobs, in which it finds nothing."""

from __future__ import annotations

import gc


def collect_seldom() -> None:
    """Collection takes a sixth of the time of a large graph of jobs."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def collect_no_more() -> None:
    """The interpreter would look through all of the graph once more, to end."""
    gc.freeze()
