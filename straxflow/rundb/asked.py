"""What a run document asks for: whether a person wants the run, and which of its products are wanted."""

from __future__ import annotations

from collections.abc import Mapping

from straxflow.config import Config
from straxflow.failures import left_out
from straxflow.rundb.rundoc import Run, status_holder


def person_asks(run: Run, config: Config, campaign: str) -> bool:
    """Whether a person, or another tool, made the run pending: all is forgiven then."""
    if run.status != "pending":
        return False
    status = status_holder(run.document, campaign, config).get("processing_status")
    if not isinstance(status, Mapping) or not isinstance(status.get("batch"), str):
        return True
    gave_back = run.campaign(campaign).get("gave_back")
    # of what we wrote only the word was changed
    ours = gave_back if isinstance(gave_back, Mapping) and gave_back.get("batch") == status["batch"] else {}
    return bool(ours.get("status", "pending") != "pending")


def left_out_of(run: Run, config: Config, campaign: str) -> dict[str, str]:
    """Products that the next pass does not make of a run, each with the reason; none if a person asks for it."""
    if person_asks(run, config, campaign):
        return {}
    return left_out(config, run.facts.mode, run.campaign(campaign))
