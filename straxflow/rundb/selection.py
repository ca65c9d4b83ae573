"""Which runs are worked on now: the rules as queries that indexes serve, and, for one run, in words."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from bson.regex import Regex

from straxflow.config import LIVE, Config
from straxflow.errors import ConfigError, UsageError
from straxflow.plan import LIVE_ONLY
from straxflow.receipts import Registered, State
from straxflow.rundb.client import Document
from straxflow.rundb.gate import OPEN, Gate
from straxflow.rundb.rundoc import ONLINE, Run, status_field, status_holder, tags_of
from straxflow.runlist import RunList, parse_runs
from straxflow.settings import failure_settings


@dataclass(frozen=True)
class Selection:
    """The rules of a campaign at a moment."""

    config: Config
    campaign: str
    now: datetime
    gate: Gate = OPEN

    @cached_property
    def numbers(self) -> RunList | None:
        """`runs.numbers`, read.

        Raises:
            ConfigError: if a word is no run, or a file is not there.
        """
        words = self.config.runs.numbers
        try:
            return None if words is None else parse_runs([str(word) for word in words], self.config)
        except UsageError as error:
            raise ConfigError(f"runs.numbers: {error}") from None

    def scope(self) -> Document:
        """The part of every query that keeps straxflow to the runs it was given."""
        runs = self.config.runs
        number: Document = {"$gte": runs.min_run_number}
        if runs.max_run_number is not None:
            number["$lte"] = runs.max_run_number
        query: Document = {"number": number, "tags.name": {"$nin": runs.tags.leave_alone}}
        if self.config.experiments and self.config.experiments != "ALL":
            query["experiment"] = {"$regex": "|".join(map(fnmatch.translate, self.config.experiments))}
        if runs.detectors:
            query["detectors"] = {"$in": runs.detectors}
        if self.numbers is not None:
            query["$and"] = [self.numbers.query()]
        return query

    def pending(self) -> list[Document]:
        """Queries for unclaimed runs that may be claimed now, each of which an index serves by itself."""
        field = status_field(self.campaign, self.config)
        ours = f"straxflow.{self.campaign}"
        unclaimed = {f"{ours}.claim.batch": {"$exists": False}}
        # what waits is what we wrote ourselves, never a person's word
        waited = {"$or": [{f"{ours}.wait_until": {"$not": {"$gt": self.now}}}, {f"{field}.batch": {"$exists": False}}]}
        branches: list[Document] = [
            {field: "pending"},
            {f"{field}.status": "pending", f"{field}.reason": {"$ne": self.reached}, **waited, "$nor": self._here()},
            {
                f"{field}.status": "failed",
                f"{ours}.due": {"$lte": self.now},
                f"{ours}.failures": {"$lt": self.config.failures.give_up_after},
            },
        ]
        # what failed by its configuration is tried again when that has changed
        changed = {"$exists": True, "$ne": failure_settings(self.config)}
        branches.append({f"{field}.status": "failed", f"{ours}.settings": changed})
        if self.campaign == ONLINE:
            at_daq = {"host": self.config.daq.host, "type": "live"}
            for theirs in self.untouched():
                # the state first: a server that reads all documents need not look through the entries of most
                branches.append({field: None, **theirs, "data.host": at_daq["host"], "data": {"$elemMatch": at_daq}})
                branches.append({field: None, **theirs, **tagged(self.config.runs.tags.process)})
            if not self.config.shadow.enabled:
                branches += [
                    {name: {"$in": other.wanted}, field: None}
                    for name, other in self.config.states.fields.items()
                    if other.wanted
                ]
        return [self._joined(branch, unclaimed, self._limits()) for branch in branches]

    def claimed(self, alive: Collection[str] = ()) -> Document:
        """The query for runs that are claimed, but not by these batches."""
        # a plain index serves "has a batch" only as a range: $exists would read every document
        batch: Document = {"$gt": "", "$nin": list(alive)} if alive else {"$gt": ""}
        return self._joined({f"straxflow.{self.campaign}.claim.batch": batch}, {}, self._limits())

    def first(self) -> Document:
        """The condition on runs that go before all others."""
        return tagged(self.config.runs.tags.prioritize)

    def urgent(self, document: Document) -> bool:
        """Whether a document's run goes before all others."""
        return bool({*tags_of(document)} & {*self.config.runs.tags.prioritize})

    def products(self, run: Run) -> list[str] | None:
        """The products to make of a run; None: all that its mode has."""
        return [] if self._only_live(run) else None

    def against(self, run: Run) -> list[str]:
        """What forbids to work on a run, whatever its state; in words."""
        return list(self._against(run))

    def forced(self, run: Run) -> bool:
        """Whether a tag has it worked on whatever its age, its mode and the DAQ."""
        return bool({*run.tags} & {*self.config.runs.tags.process})

    def _joined(self, branch: Document, more: Document, limits: list[Document]) -> Document:
        scope = self.scope()
        every = [*scope.pop("$and", []), *limits]
        return {**branch, **more, **scope, **({"$and": every} if every else {})}

    @property
    def reached(self) -> str:
        """The reason in the state of a run for which this site has no step left."""
        return "reached " + " ".join(self.config.steps)

    @property
    def _max_age_days(self) -> float | None:
        # the runs of another campaign were chosen by a person, one by one
        return self.config.runs.max_age_days if self.campaign == ONLINE else None

    def _limits(self) -> list[Document]:
        """Conditions on age and mode; documents with no usable end or mode pass, to be told of."""
        runs = self.config.runs
        limits: list[Document] = []
        if self._max_age_days is not None:
            limits.append({"end": {"$not": {"$lt": self.now - timedelta(days=self._max_age_days)}}})
        if "*" not in runs.modes and not any("[" in pattern for pattern in runs.modes):
            selected = "|".join(
                "".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in pattern) for pattern in runs.modes
            )
            limits.append({"mode": {"$not": Regex(f"^(?!(?:{selected})$)")}})
        if not limits or not runs.tags.process:
            return limits
        return [{"$or": [tagged(runs.tags.process), {"$and": limits}]}]

    def _here(self) -> list[Document]:
        """Conditions, none of which may hold: the live data is here, and no product is wanted."""
        tags = self.config.runs.tags
        reason = {f"{status_field(self.campaign, self.config)}.reason": LIVE_ONLY}
        here: list[Document] = [{**reason, **tagged(tags.transfer_only)}]
        if self.gate.level != "work":
            here.append({**reason, "tags.name": {"$nin": tags.process}})
        return here

    def untouched(self) -> list[Document]:
        """What the shared state says of runs that we have not touched: nothing, or what the tool that we shadow
        leaves."""
        states = self.config.shadow.states
        if not self.config.shadow.enabled or "*" in states:
            return [{}]
        return [{"processing_status": {"$in": states}}, {"processing_status.status": {"$in": states}}]

    def _transfer_only(self, run: Run) -> str | None:
        return next((tag for tag in run.tags if tag in self.config.runs.tags.transfer_only), None)

    def _only_live(self, run: Run) -> bool:
        return bool(self._transfer_only(run)) or (self.gate.level == "transfer" and not self.forced(run))

    def _against(self, run: Run) -> Iterator[str]:
        runs, facts = self.config.runs, run.facts
        highest = runs.max_run_number
        experiment = str(run.document.get("experiment", ""))
        if not self.config.selects_experiment(experiment):
            yield f"experiment {experiment!r} is not in experiments"
        if facts.number < runs.min_run_number:
            yield f"it lies below runs.min_run_number ({runs.min_run_number})"
        if highest is not None and facts.number > highest:
            yield f"it lies above runs.max_run_number ({highest})"
        if self.numbers is not None and not self.numbers.contains(facts.number, run.document.get("name")):
            yield "it is not in runs.numbers"
        if runs.detectors and not {*facts.detectors} & {*runs.detectors}:
            yield f"its detectors ({', '.join(facts.detectors) or 'none'}) are not in runs.detectors"
        yield from (f"tag {tag}" for tag in run.tags if tag in runs.tags.leave_alone)
        forced = self.forced(run)
        if not (forced or self.config.selects_mode(facts.mode)):
            yield f"mode {facts.mode} is not in runs.modes"
        age = (self.now - facts.end) / timedelta(days=1)
        if self._max_age_days is not None and age > self._max_age_days and not forced:
            yield f"it ended {age:.1f} days ago (runs.max_age_days is {self._max_age_days:g})"
        if facts.end > self.now - timedelta(seconds=runs.settle_s):
            yield f"it ended less than {runs.settle_s:g} s ago (runs.settle_s)"
        if self.gate.level == "nothing" and not forced:
            yield f"{self.gate.live} (daq.while_live: nothing)"
        elif self._only_live(run) and self._live_is_here(run):
            tag = self._transfer_only(run)
            why = f"tag {tag}" if tag else f"{self.gate.live} (daq.while_live: transfer)"
            yield f"{why}: its live data is all that is brought in, and no product is made"

    def _live_is_here(self, run: Run) -> bool:
        if "transfer" not in self.config.steps:
            return True
        value = status_holder(run.document, self.campaign, self.config).get("processing_status")
        if run.status == "pending" and isinstance(value, Mapping) and value.get("reason") == LIVE_ONLY:
            return True
        state = State(self.config.folders.state / self.campaign)
        # a failed run may have failed at a product; others are looked at again by an invocation, once
        return run.status == "failed" and state.path(run.id, LIVE, Registered).is_file()


def tagged(names: Sequence[str]) -> Document:
    """The condition on runs with one of these tags."""
    # not {"tags.name": {"$in": ...}}: it may be joined with a $nin, and not every server gets both on one field right
    return {"tags": {"$elemMatch": {"name": {"$in": list(names)}}}}
