"""What the document of a run that is worked on was told, and what it is to be told next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from pymongo import UpdateOne

from straxflow.attempts import AttemptFile
from straxflow.claimfile import ClaimFile
from straxflow.config import Config
from straxflow.progress import RELEASE, ProductState, states_seen
from straxflow.receipts import State, now
from straxflow.rundb.client import Document, RunDb
from straxflow.rundb.rundoc import campaign_part, query_for, status_field
from straxflow.rundb.states import RUNNING, SUBMITTED, as_told, details, other_fields, status_value, still_ours
from straxflow.runfiles import CachedFiles

BETWEEN_S = 10.0
"""Between two steps a run stays `running` for so long."""


@dataclass(frozen=True)
class Status:
    """The shared state of a run that is worked on."""

    word: str
    reason: str
    host: str
    time: datetime

    def same(self, other: Status) -> bool:
        """Whether it says the same; when it began and where need no write of their own."""
        return (self.word, self.reason) == (other.word, other.reason)


@dataclass
class Memory:
    """A run of ours, and what its document was told so far; a new claim begins without memory."""

    config: Config
    state: State
    campaign: str
    claim: ClaimFile
    mode: str
    states: Mapping[str, ProductState] = field(default_factory=dict)
    part: Mapping[str, Any] = field(default_factory=dict)
    others: Document = field(default_factory=dict)
    attempts: dict[str, AttemptFile] = field(default_factory=dict)
    status: Status = field(init=False)
    _guard: Document | None = None

    def __post_init__(self) -> None:
        self.status = self._submitted()

    def guard(self, db: RunDb) -> Document | None:
        """The condition under which we may write: that our claim still stands; None if it does not."""
        if self._guard is None:
            ours = f"straxflow.{self.campaign}"
            claim = {f"{ours}.claim.batch": self.claim.batch, f"{ours}.token": self.claim.token}
            fields = {"_id": 1, f"{ours}.products": 1, f"{ours}.{RELEASE}": 1}
            document = db.runs.find_one({**query_for(self.claim.run, self.config), **claim}, fields)
            if document:
                # by its _id a document is found at once in any kind of database
                self._guard = {"_id": document["_id"], **claim}
                self.part = campaign_part(document, self.campaign)
        return self._guard

    def look(self, files: CachedFiles) -> Look:
        """How the run stands now, and what of it is news."""
        run = self.claim.run
        seen = files.look(self.state, run)
        size = partial(files.size_mb, self.state, run, files=seen)
        states = states_seen(self.config, self.mode, seen, size, self.claim.made, self.claim.left_out)
        news = [file for file in seen.attempts if self.attempts.get(file.path.name) is not file]
        ended = max((file.attempt.ended for file in seen.attempts if file.attempt.ended), default=None)
        restless = ended is not None and (now() - ended).total_seconds() < BETWEEN_S
        status = _running(states) or (self.status if restless else self._submitted())
        return Look(self, states, status, news, restless and status.word == RUNNING)

    def _submitted(self) -> Status:
        host = str(self.claim.owner.get("host"))
        return Status(SUBMITTED, f"claimed by straxflow {self.claim.batch}", host, self.claim.made)


class Look:
    """What a document is to be told of its run."""

    def __init__(
        self,
        memory: Memory,
        states: Mapping[str, ProductState],
        status: Status,
        files: list[AttemptFile],
        restless: bool,
    ) -> None:
        self.memory, self.states, self.status, self.files, self.restless = memory, states, status, files, restless
        self.others = other_fields(memory.config, memory.campaign, status.word, states)

    def writes(self, guard: Document) -> list[UpdateOne]:
        """What is to be written, under the condition that our claim still stands."""
        memory, batch = self.memory, self.memory.claim.batch
        news = {name: state for name, state in self.states.items() if memory.states.get(name) != state}
        told = details(memory.campaign, news, memory.part)
        writes = [UpdateOne(guard, {"$set": told})] if told else []
        shared = {name: word for name, word in self.others.items() if memory.others.get(name) != word}
        if not self.status.same(memory.status):
            told_now = self.status
            shared[status_field(memory.campaign, memory.config)] = status_value(
                memory.config, told_now.word, told_now.time, told_now.host, told_now.reason, batch
            )
        if shared:
            # a person's word that was written meanwhile stays
            writes.append(UpdateOne({**guard, **still_ours(memory.config, memory.campaign, batch)}, {"$set": shared}))
        return writes

    def was_told(self) -> None:
        """Remember that it was written."""
        memory = self.memory
        told = as_told(self.states)
        memory.part = {RELEASE: told.pop(RELEASE, {}), "products": told}
        memory.states, memory.status, memory.others = self.states, self.status, self.others
        memory.attempts |= {file.path.name: file for file in self.files}


def _running(states: Mapping[str, ProductState]) -> Status | None:
    """`running`, from the open attempts."""
    at_work = {name: state for name, state in states.items() if state.state == "running"}
    if not at_work:
        return None
    first = min(at_work.values(), key=lambda state: state.time or now())
    what = ", ".join(s.step if name == s.step else f"{s.step} of {name}" for name, s in at_work.items())
    return Status(RUNNING, what, str(first.host), first.time or now())
