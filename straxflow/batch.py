"""What an invocation hands to its jobs: its id, its owner, its campaign, and the runs that it claimed."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterable

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from straxflow.errors import StraxflowError
from straxflow.owner import Owner
from straxflow.receipts import now

BATCH = "STRAXFLOW_BATCH"
OWNER = "STRAXFLOW_OWNER"
CAMPAIGN = "STRAXFLOW_CAMPAIGN"
KEPT = "STRAXFLOW_KEPT"
"""The batch whose leases a main process renews; its checkpoint claims for no other."""
BATCH_TIME = "%Y%m%dT%H%M%S"
"""What a batch id begins with: when its invocation began."""
_CAMPAIGN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class BatchRun(BaseModel):
    """A claimed run in the batch file."""

    run: str
    number: int
    mode: str
    token: int
    products: list[str] | None = None
    """The products to make of it; None: all that its mode has."""
    left_out: list[str] = []
    """Products that are not made of it in this pass."""


class Batch(BaseModel):
    """batches/{batch}.json: the runs that an invocation claimed."""

    model_config = ConfigDict(extra="forbid")

    batch: str
    campaign: str
    made: AwareDatetime = Field(default_factory=now)
    runs: list[BatchRun]
    problems: list[str] = []


def batch_file(batch: str) -> str:
    """Where the batch file stands in the state folder."""
    return f"batches/{batch}.json"


def config_file(batch: str) -> str:
    """Where the configuration of an invocation stands in the state folder, for its jobs."""
    return f"batches/{batch}.config.json"


def campaign_name() -> str:
    """The campaign of this process: STRAXFLOW_CAMPAIGN, or `online`.

    Raises:
        StraxflowError: if it is no plain name.
    """
    name = os.environ.get(CAMPAIGN) or "online"
    if not _CAMPAIGN_NAME.fullmatch(name):
        raise StraxflowError(f"{CAMPAIGN}={name!r}: a campaign's name has letters, digits and _ only")
    if name == "partial":
        raise StraxflowError(f"{CAMPAIGN}={name!r}: run documents have this word for something else")
    return name


def new_batch_id() -> str:
    """An id that no other invocation has."""
    return now().strftime(BATCH_TIME) + "_" + uuid.uuid4().hex[:6]


def ensure_batch_id() -> str:
    """The id of this invocation: made once in the main process, inherited by its jobs through the environment."""
    if BATCH not in os.environ:
        os.environ[BATCH] = new_batch_id()
    if OWNER not in os.environ:
        os.environ[OWNER] = Owner.current().token()
    return os.environ[BATCH]


def runs_in_targets(targets: Iterable[str]) -> list[str]:
    """Run ids in explicitly named targets."""
    found = (re.search(r"(?:^|/)runs/([^/]+)/", target) for target in targets)
    return sorted({match[1] for match in found if match})
