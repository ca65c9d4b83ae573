"""Make all targets of a job in one process, computing nothing twice where strax allows it."""

from __future__ import annotations

import time
from typing import Any

import strax

from straxflow.straxjob.context import needed_types
from straxflow.straxjob.request import Request


def passes(st: Any, request: Request, targets: list[str], available: set[str]) -> list[list[str]]:
    """Order targets into passes over the data; the first of each pass drives it, the others are saved on the way.

    In one thread, strax computes only what its one final target needs, so each branch takes a pass of
    its own, which reads what earlier passes saved. With workers, all branches run at once.
    """
    left, loadable, plan = list(targets), set(available), list[list[str]]()
    while left:
        needs = {t: needed_types(st, request.run, t, loadable, request.source == "live") for t in left}
        # the one that most others are made for: whatever it needs on its way is saved with it
        final = max(left, key=lambda t: (len(needs[t] & set(left)), len(needs[t])))
        together = left if request.workers > 1 else [t for t in left if t in needs[final]]
        plan.append([final, *(t for t in together if t != final)])
        loadable |= set(together)
        left = [t for t in left if t not in together]
    return plan


def run_pass(st: Any, request: Request, group: list[str]) -> dict[str, Any]:
    """Run one pass; return how long it took (s) and how many chunks the final target had."""
    started = time.perf_counter()
    # strax warns of what `passes` takes care of
    st.log.addFilter(lambda record: "Multiple targets detected" not in record.getMessage())
    parallel = request.workers > 1
    components = st.get_components(request.run, targets=tuple(group), save=tuple(group))
    if not parallel:
        # strax picks any end of the tree; a saver on another one would never be driven, nor closed
        components = components._replace(targets=(group[0],))
    options = {
        name: st.context_config[name]
        for name in ("allow_shm", "allow_multiprocess", "allow_rechunk", "allow_lazy", "max_messages", "timeout")
    }
    # only the mailbox processor takes workers; the single thread one would ignore them silently
    processor = st.processors["threaded_mailbox" if parallel else "single_thread"]
    chunks = processor(components, max_workers=request.workers, **options).iter()
    n_chunks = sum(1 for _ in strax.continuity_check(chunks))
    return {
        "targets": group,
        "seconds": round(time.perf_counter() - started, 3),
        "n_chunks": n_chunks,
        "forked": any(s.is_forked for savers in components.savers.values() for s in savers),
    }
