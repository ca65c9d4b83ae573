"""What the run document and the configuration say about the data of a run: where to look, and what to compare with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from straxflow import strax_python
from straxflow.config import Config
from straxflow.errors import StraxflowError
from straxflow.rundb.client import Document
from straxflow.rundb.entries import entries_in
from straxflow.rundb.rundoc import Run, data_field
from straxflow.settings import settings_digest

LINEAGE_S = 120


@dataclass
class Evidence:
    """Entries of run documents, and the lineages that the configuration gives today (asked once a product).

    `any_tool`: entries of other tools count too, as they do when their data are adopted.
    """

    config: Config
    campaign: str
    any_tool: bool = False
    _lineages: dict[str, dict[str, str] | StraxflowError] = field(default_factory=dict)

    def entries(self, run: Run, data_type: str, hosts: Sequence[str] | None) -> list[Document]:
        """The entries of a data type at these hosts (None: any), those of this campaign first."""
        found = [
            entry
            for entry in entries_in(run.document, data_field(self.campaign, self.config))
            if entry.get("type") == data_type and (hosts is None or entry.get("host") in hosts)
        ]
        own = [entry for entry in found if entry.get("campaign") == self.campaign]
        # live data belong to all campaigns
        if data_type == "live" or (self.any_tool and not own):
            return found
        return own

    def deleted(self, run: Run, data_type: str, hosts: Sequence[str] | None) -> list[Document]:
        """Entries of copies that were dropped on purpose."""
        place = data_field(self.campaign, self.config).removesuffix("data") + "deleted_data"
        return [
            entry
            for entry in entries_in(run.document, place)
            if entry.get("type") == data_type and (hosts is None or entry.get("host") in hosts)
        ]

    def folders(self, run: Run, product: str, data_type: str) -> list[str]:
        """Names that the folder of a data type may have, the likeliest first: registered, or made by the settings
        of today."""
        names = [name for e in self.entries(run, data_type, self.config.store_hosts) if (name := folder_of(run, e))]
        if lineage := self.lineage(product).get(data_type):
            today = f"{run.id}-{data_type}-{lineage}"
            # of several that are registered, the one of today's settings
            names = [today, *names] if today in names else [*names, today]
        return list(dict.fromkeys(names))

    def lineage(self, product: str) -> dict[str, str]:
        """Lineage hash by data type that the configuration gives a product; empty if strax cannot tell."""
        known = self._lineages.get(product)
        if known is None:
            known = self._lineages[product] = self._ask(product)
        return {} if isinstance(known, StraxflowError) else known

    def _ask(self, product: str) -> dict[str, str] | StraxflowError:
        if self.config.products[product].kind == "command":
            return {product: settings_digest(self.config, product)}
        try:
            context = strax_python.context_of(self.config, product)
            return strax_python.lineages(self.config, context, self.config.targets(product), LINEAGE_S)
        except StraxflowError as error:
            return error

    def why_no_lineage(self, product: str) -> str | None:
        """Why strax could not tell the lineage of a product."""
        known = self._lineages.get(product)
        return str(known) if isinstance(known, StraxflowError) else None


def folder_of(run: Run, entry: Document) -> str | None:
    """Name of the data folder that an entry means: the end of its location, or told by its lineage hash."""
    place, data_type, lineage = entry.get("location"), entry.get("type"), entry.get("lineage_hash")
    last = place.rstrip("/").rpartition("/")[2] if isinstance(place, str) else ""
    if re.fullmatch(rf"{re.escape(run.id)}-{re.escape(str(data_type))}-[A-Za-z0-9]+", last):
        return last
    return f"{run.id}-{data_type}-{lineage}" if isinstance(lineage, str) and lineage.isalnum() else None


def contradictions(entry: Document, found: Mapping[str, Any]) -> list[str]:
    """Where an entry says something else than was found (n_chunks, file_count, size_mb, digest). What it does not
    say contradicts nothing; of another tool's only the chunks mean the same."""
    sums = entry.get("checksum")
    told = {**entry, "digest": sums.get("digest") if isinstance(sums, Mapping) else None}
    keys = found.keys() if entry.get("by") == "straxflow" else found.keys() & {"n_chunks"}
    return [
        f"{key} is {found[key]}, its entry says {told[key]}"
        for key in sorted(keys)
        if told.get(key) is not None and not _same(told[key], found[key])
    ]


def _same(told: Any, found: Any) -> bool:
    # metadata of a remade product may be some bytes longer
    return abs(told - found) < 0.002 if isinstance(told, float) and isinstance(found, float) else bool(told == found)
