"""What a run document asks for: whether a person wants the run, and which of its products are wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from straxflow.config import Config
from straxflow.failures import left_out
from straxflow.rundb.rundoc import Run, status_holder
from straxflow.rundb.states import RUNNING, SUBMITTED


def state_before(run: Run, config: Config, campaign: str) -> Any:
    """The state, as it stands, that a run had before it was claimed; of one that nobody works on, the present one."""
    claim = run.campaign(campaign).get("claim")
    if run.status in (SUBMITTED, RUNNING) and isinstance(claim, Mapping):
        return claim.get("before")
    return status_holder(run.document, campaign, config).get("processing_status")


def person_asks(run: Run, config: Config, campaign: str) -> bool:
    """Whether a person, or another tool, made the run pending: all is forgiven then."""
    state = state_before(run, config, campaign)
    if not isinstance(state, Mapping):
        return bool(state == "pending")
    if state.get("status") != "pending":
        return False
    if not isinstance(state.get("batch"), str):
        return True
    part = run.campaign(campaign)
    # of what we wrote only the word was changed: what we give back is told, and at work we write other words
    for ours, default in ((part.get("gave_back"), "pending"), (part.get("claim"), SUBMITTED)):
        if isinstance(ours, Mapping) and ours.get("batch") == state["batch"]:
            return bool(ours.get("status", default) != "pending")
    return False


def left_out_of(run: Run, config: Config, campaign: str) -> dict[str, str]:
    """Products that the next pass does not make of a run, each with the reason; none if a person asks for it."""
    if person_asks(run, config, campaign):
        return {}
    return left_out(config, run.facts.mode, run.campaign(campaign))
