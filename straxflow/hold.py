"""Hold runs for a moment, as an invocation does, while a command works on their receipts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from straxflow.batch import new_batch_id
from straxflow.config import Config
from straxflow.folders import marker_site
from straxflow.fsio import check_marker
from straxflow.invocation import Invocation
from straxflow.receipts import State


@contextmanager
def held(config: Config, state: State, campaign: str, runs: Sequence[str]) -> Iterator[Invocation]:
    """Claim runs, whatever their state, and give them back with the state they had.

    What a dead invocation left running of them is stopped first, and its jobs are refused from then on.

    Raises:
        RunDbError: if a live invocation works on one of them; none is held then.
    """
    # an unmounted state folder must not be made in passing
    check_marker(state.folder, "state", marker_site(config, "state", state))
    invocation = Invocation(config, state, campaign, new_batch_id())
    invocation.claim_targets([f"runs/{run}/" for run in runs])
    try:
        yield invocation
    finally:
        invocation.finish()
