"""What may be claimed at this moment at all: the switch, disks, a DAQ that takes data, the site's cap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Literal

from pymongo import DESCENDING

from straxflow.config import Config
from straxflow.disks import too_full
from straxflow.fsio import MARKER
from straxflow.receipts import State
from straxflow.rundb.client import Document, RunDb
from straxflow.rundb.lapse import claim_lapsed
from straxflow.rundb.rundoc import campaign_part
from straxflow.rundb.switch import read_switch

Level = Literal["work", "transfer", "nothing"]


@dataclass(frozen=True)
class Gate:
    """What may be claimed now."""

    shut: tuple[str, ...] = ()
    """Why nothing at all is claimed."""
    level: Level = "work"
    """What is claimed while the DAQ takes data, but for runs with the tag `process`."""
    live: str | None = None
    """What the DAQ is taking, if that makes a difference."""
    room: int | None = None
    """How many more runs may be at work; None: no limit."""

    def held(self) -> list[str]:
        """What holds up runs at present, as messages."""
        said = [f"nothing is claimed: {reason}" for reason in self.shut]
        if self.level != "work":
            what = "only live data is brought in" if self.level == "transfer" else "nothing is claimed"
            said.append(f"{self.live}: {what}, but for runs with the tag `process` (daq.while_live: {self.level})")
        return said


OPEN = Gate()


def look(db: RunDb, config: Config, campaign: str) -> Gate:
    """Look at all that can hold up claims; two or three small queries, and the disks."""
    shut = []
    switch = read_switch(db, config)
    if not switch.on:
        shut.append(switch.text)
    shut += too_full(config, State(config.folders.state / campaign))
    most = config.claim.max_jobs
    room = None if most is None else max(most - at_work(db, config, most), 0)
    if room == 0:
        shut.append(f"{most} runs are at work at this site, as many as claim.max_jobs allows")
    live = being_taken(db, config)
    return Gate(tuple(shut), config.daq.while_live if live else "work", live, room)


def at_work(db: RunDb, config: Config, enough: int) -> int:
    """Runs of all campaigns that are claimed at this site, by claims that have not lapsed; counted up to a little over
    `enough`."""
    campaigns = sorted(p.name for p in config.folders.state.iterdir() if (p / MARKER).is_file())
    either = [
        {f"straxflow.{name}.claim.batch": {"$gt": ""}, f"straxflow.{name}.claim.site": config.site}
        for name in campaigns
    ]
    if not either:
        return 0
    parts = ("site", "owner", "renewed", "lease_s")
    fields = {f"straxflow.{name}.claim.{part}": 1 for name in campaigns for part in parts}
    moment = db.now()
    claimed = (
        document
        for document in db.runs.find({"$or": either}, fields)
        if any(_at_work(campaign_part(document, name).get("claim"), config, moment) for name in campaigns)
    )
    return sum(1 for _ in islice(claimed, enough + 1))


def _at_work(claim: object, config: Config, moment: datetime) -> bool:
    """Whether somebody works at this site by this claim; what a dead invocation left is nobody's work."""
    ours = isinstance(claim, Mapping) and claim.get("site") == config.site
    return ours and not claim_lapsed(claim, moment, config.claim.lease_s)


def being_taken(db: RunDb, config: Config) -> str | None:
    """What the DAQ takes at this moment, in words; None if nothing, or if `daq.while_live` does not care."""
    daq = config.daq
    if daq.while_live == "work":
        return None
    if daq.live_document:
        where = db.database(daq.live_document.database)[daq.live_document.collection]
        found = where.find_one(dict(daq.live_document.query), {"_id": 1})
        return f"the DAQ is live ({where.full_name})" if found else None
    query: Document = {"number": {"$gte": 0}}
    if config.runs.detectors:
        query["detectors"] = {"$in": config.runs.detectors}
    fields = dict.fromkeys(("number", "start", "end"), 1)
    newest: Mapping[str, Any] | None = db.runs.find_one(query, fields, sort=[("number", DESCENDING)])
    if newest is None or newest.get("end") is not None:
        return None
    start = newest.get("start")
    if not isinstance(start, datetime):
        return None
    began = start if start.tzinfo else start.replace(tzinfo=UTC)
    if db.now() - began > timedelta(hours=daq.live_hours):
        return None
    return f"run {newest['number']} is being taken since {began:%F %T} UTC"
