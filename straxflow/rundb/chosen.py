"""The run documents of the runs that a person named, for commands that write; what is not to be touched is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from straxflow.config import Config
from straxflow.rundb.client import Document, RunDb
from straxflow.rundb.pending import scope
from straxflow.rundb.rundoc import (
    IDENTITY,
    Malformed,
    campaign_part,
    data_field,
    make_run_id,
    name_of,
    status_field,
    status_of,
)
from straxflow.runlist import RunList

FIELDS = [*IDENTITY, "start", "end", "tags", "processing_status", "processing_failed", "straxflow"]


@dataclass(frozen=True)
class Chosen:
    """A run that was named, and its document."""

    id: str
    object_id: object
    document: Document

    def part(self, campaign: str) -> Mapping[str, Any]:
        """straxflow's own sub-document of a campaign."""
        return campaign_part(self.document, campaign)

    def status(self, campaign: str, config: Config) -> str | None:
        """The state that its document says."""
        return status_of(self.document, campaign, config)


def choose(db: RunDb, config: Config, runs: RunList) -> tuple[list[Chosen], list[str]]:
    """The named runs, oldest first, and a message for each that is not there or may not be touched."""
    documents = list(db.runs.find(runs.query(), dict.fromkeys(FIELDS, 1)).sort("number", 1))
    names = [name for d in documents if (name := name_of(d, config))]
    numbers = [d["number"] for d in documents if isinstance(d.get("number"), int)]
    problems = [
        f"{word}: there is no run document of it in {db.runs.full_name}" for word in runs.unmatched(numbers, names)
    ]
    chosen, told = usable(documents, config)
    return chosen, problems + told


def failed(db: RunDb, config: Config, campaign: str) -> tuple[list[Chosen], list[str]]:
    """All failed runs of this site."""
    field = status_field(campaign, config)
    query = {"$and": [scope(config), {"$or": [{field: "failed"}, {f"{field}.status": "failed"}]}]}
    return usable(list(db.runs.find(query, dict.fromkeys(FIELDS, 1)).sort("number", 1)), config)


def with_data(db: RunDb, config: Config, campaign: str) -> tuple[list[Chosen], list[str]]:
    """All runs that this site has worked on: by straxflow's part of their documents, or by their data entries."""
    place = f"{data_field(campaign, config)}.host"
    hosts = {"$in": list(dict.fromkeys([config.site, *config.store_hosts]))}
    query = {"number": scope(config)["number"], "$or": [{f"straxflow.{campaign}.token": {"$gte": 1}}, {place: hosts}]}
    return usable(list(db.runs.find(query, dict.fromkeys(FIELDS, 1)).sort("number", 1)), config)


def usable(documents: list[Document], config: Config) -> tuple[list[Chosen], list[str]]:
    """The runs of documents that may be touched, and a message for each that may not."""
    chosen, problems = [], []
    lowest, highest = config.runs.min_run_number, config.runs.max_run_number
    outside = 0
    found: dict[str, list[Document]] = {}
    for document in documents:
        number = document.get("number")
        label = f"run document {document['_id']}"
        if not isinstance(number, int) or isinstance(number, bool):
            problems.append(f"{label}: number: expected an integer, found {number!r}; it is passed over")
        elif number < lowest or (highest is not None and number > highest):
            outside += 1
        else:
            try:
                found.setdefault(make_run_id(document, config, label), []).append(document)
            except Malformed as error:
                problems.append(f"{error}; it is passed over")
    if outside:
        problems.append(
            f"{outside} run{'s' * (outside != 1)} outside of runs.min_run_number ({lowest}) and max_run_number "
            f"({highest}): never touched"
        )
    for run, same in found.items():
        if len(same) > 1:
            problems.append(f"run {run}: {len(same)} run documents have this number; remove the wrong ones")
        else:
            chosen.append(Chosen(run, same[0]["_id"], same[0]))
    return chosen, problems
