"""What the document of a run that is worked on was told, and what it is to be told next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pymongo import UpdateOne

from straxflow.attempts import AttemptFile
from straxflow.claimfile import ClaimFile
from straxflow.config import Config
from straxflow.progress import CachedFiles, ProductState, product_states
from straxflow.receipts import State, now
from straxflow.rundb.client import Document
from straxflow.rundb.rundoc import query_for, status_field
from straxflow.rundb.states import RUNNING, SUBMITTED, Told, as_told, details, other_fields, status_value, still_ours

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
    told: Told = field(default_factory=dict)
    others: Document = field(default_factory=dict)
    attempts: dict[str, AttemptFile] = field(default_factory=dict)
    status: Status = field(init=False)

    def __post_init__(self) -> None:
        self.status = self._submitted()

    def look(self, files: CachedFiles) -> Look:
        """How the run stands now, and what of it is news."""
        run = self.claim.run
        states = product_states(self.config, self.state, run, self.mode, self.claim.made, files)
        attempts = list(files.attempts(self.state, run))
        news = [file for file in attempts if self.attempts.get(file.path.name) is not file]
        ended = max((file.attempt.ended for file in attempts if file.attempt.ended), default=None)
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
        self.writes = self._writes()

    def _writes(self) -> list[UpdateOne]:
        memory = self.memory
        ours, batch = f"straxflow.{memory.campaign}", memory.claim.batch
        guard: Document = {
            **query_for(memory.claim.run, memory.config),
            f"{ours}.claim.batch": batch,
            f"{ours}.token": memory.claim.token,
        }
        told = details(memory.campaign, self.states, memory.told)
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
        memory.told, memory.status, memory.others = as_told(self.states), self.status, self.others
        memory.attempts |= {file.path.name: file for file in self.files}


def _running(states: Mapping[str, ProductState]) -> Status | None:
    """`running`, from the open attempts."""
    at_work = {name: state for name, state in states.items() if state.state == "running"}
    if not at_work:
        return None
    first = min(at_work.values(), key=lambda state: state.time or now())
    what = ", ".join(s.step if name == s.step else f"{s.step} of {name}" for name, s in at_work.items())
    return Status(RUNNING, what, str(first.host), first.time or now())
