"""A made-up past of a site: run documents, receipts, attempts and logs, as weeks of data taking would leave them.

For looking at the status page, and for its tests; nothing of it is data.
"""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import BaseModel
from pymongo.collection import Collection

from straxflow import attempts, claimfile, summaries
from straxflow.attempts import Attempt, Outcome
from straxflow.config import LIVE, Config
from straxflow.owner import Owner
from straxflow.plan import RECEIPTS
from straxflow.receipts import (
    Checksums,
    LiveFacts,
    Processed,
    Receipt,
    Registered,
    Released,
    RunFacts,
    State,
    Stored,
    Target,
    Transferred,
    now,
)
from straxflow.rundb import summaries as summaries_in_database
from straxflow.rundb.client import RunDb
from straxflow.settings import settings_digest

Document = dict[str, Any]
MODES = {"background": (600, 0.9e9), "calibration_kr83m": (600, 3.1e9), "led": (300, 0.6e9), "noise": (120, 0.1e9)}
STEP_S = {"transfer": 40.0, "process": 60.0, "checksum": 4.0, "move_out": 9.0, "release": 2.0}
SHARE = {"raw_records": 0.55, "peaks": 0.11, "events": 0.02, "led_calibration": 0.01}


@dataclass
class History:
    """Writes the past of a site, run by run."""

    config: Config
    state: State
    runs: Collection[Document]
    campaign: str = "online"
    owner: Owner = field(default_factory=Owner.current)
    random: random.Random = field(default_factory=lambda: random.Random(1))

    def run(self, number: int, mode: str, end: datetime, status: str | None = None, **changes: Any) -> str:
        """A run's document and facts; `changes` to the document."""
        run = self.config.run_id.format(number=number, experiment=self.config.experiment, mode=mode)
        seconds = MODES[mode][0] * self.random.uniform(0.7, 1.1)
        start = end - timedelta(seconds=seconds)
        document: Document = {
            "number": number, "name": run, "start": start, "end": end, "mode": mode, "detectors": ["tpc"],
            "source": {"type": "none"}, "tags": [], "comments": [],
            "data": [{"type": LIVE, "host": self.config.daq.host, "location": f"/daq/{run}"}],
        }  # fmt: skip
        if status:
            document["processing_status"] = {"status": status, "time": end, "host": self.owner.host, "reason": None}
        self.runs.insert_one(document | changes)
        return run

    def facts(self, run: str, number: int) -> None:
        """run.json, as the workflow writes it once a run is claimed."""
        document = self.runs.find_one({"number": number}) or {}
        folder = self.state.run(run)
        folder.mkdir(parents=True, exist_ok=True)
        times = {key: document[key] for key in ("start", "end")}
        _write(folder / RunFacts.name, RunFacts(run=run, number=number, mode=document["mode"], **times))

    def step(
        self,
        run: str,
        product: str,
        step: str,
        at: datetime,
        outcome: Outcome | None = "ok",
        reason: str | None = None,
        words: str = "",
    ) -> datetime:
        """An attempt of a step, its log, and its receipt if it went well; when it ended. Outcome None: it runs."""
        seconds = STEP_S.get(step, 0.4) * self.random.uniform(0.6, 1.6)
        ended = at + timedelta(seconds=seconds)
        log = f"logs/{run}/{product}.{step}.log"
        attempt = Attempt(
            run=run, product=product, step=step, batch="made-up", owner=self.owner.as_dict(), log=log, started=at,
            ended=ended if outcome else None, outcome=outcome, reason=reason, seconds=seconds if outcome else None,
            cpu_seconds=seconds * 0.9, peak_rss_mb=self.random.uniform(300, 2400), job_id=str(48000 + len(log)),
        )  # fmt: skip
        folder = attempts.folder(self.state, run, product)
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{at:%Y%m%dT%H%M%S%f}-{step}-{self.random.randrange(16**8):08x}.json"
        _write(folder / name, attempt)
        file = self.state.folder / log
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as out:
            out.write(f"{at:%F %T},000 INFO {step} of {product}, run {run}, begins (invocation made-up)\n{words}")
            out.write(f"{ended:%F %T},000 {'ERROR ' + (reason or '') if reason else 'INFO done'}\n" if outcome else "")
        if outcome == "ok":
            self._receipt(run, product, step, ended, seconds)
        return ended

    def chain(self, run: str, at: datetime, until: int | None = None) -> datetime:
        """All steps of a run, or so many of them; when the last ended."""
        mode = self.state.facts(run).mode
        wanted = [(LIVE, "transfer"), (LIVE, "register_live")]
        wanted += [(p, s) for p in self.config.products_for(mode) for s in RECEIPTS]
        wanted += [(LIVE, "release")]
        for product, step in wanted[:until]:
            at = self.step(run, product, step, at)
        return at

    def claim(self, number: int, run: str, batch: str, claimed: datetime, owner: Owner | None = None) -> None:
        """Let an invocation hold a run."""
        owner = owner or self.owner
        claim = {
            "owner": owner.as_dict(), "batch": batch, "lease_s": 600, "claimed": claimed, "renewed": now(),
        }  # fmt: skip
        status = {"status": "submitted", "time": claimed, "host": owner.host, "reason": f"claimed by straxflow {batch}"}
        ours = {f"straxflow.{self.campaign}.claim": claim, f"straxflow.{self.campaign}.token": 1}
        self.runs.update_one({"number": number}, {"$set": {"processing_status": status, **ours}})
        claimfile.write(self.state, claimfile.ClaimFile(run=run, token=1, batch=batch, owner=owner.as_dict()))

    def summary(self, db: RunDb, run: str, product: str, values: dict[str, float], plot: str) -> None:
        """The summary of a product, for the online monitor."""
        with TemporaryDirectory() as written:
            (Path(written) / "summary.json").write_text(json.dumps({"values": values}))
            (Path(written) / "plot.svg").write_text(plot)
            summaries.take(self.state, run, product, Path(written))
        summaries_in_database.record(db, self.config, self.campaign, self.state, self.state.facts(run), product)

    def _receipt(self, run: str, product: str, step: str, made: datetime, seconds: float) -> None:
        facts = self.state.facts(run)
        size = int(MODES[facts.mode][1] * facts.seconds / MODES[facts.mode][0])
        part = int(size * SHARE.get(product, 0.1))
        folder = f"{run}-{product}-abcdefghij"
        receipt: Receipt
        if step == "transfer":
            check = LiveFacts(chunks=12, records=size // 300, bytes_uncompressed=2 * size, seconds=facts.seconds)
            receipt = Transferred(
                run=run, made=made, folder=f"/live/{run}", source=f"/daq/{run}", host=self.config.daq.host,
                algorithm="xxh128", files=[("000000/reader_0", size, "0" * 32)], bytes=size, seconds=seconds,
                check=check,
            )  # fmt: skip
        elif step == "release":
            receipt = Released(run=run, made=made, dropped={}, kept={f"/live/{run}": "release.live: keep"}, bytes=0)
        elif step == "process":
            target = Target(
                folder=folder, lineage_hash="abcdefghij", chunks=12, records=part // 200, bytes=part, files=13
            )
            receipt = Processed(
                run=run, made=made, product=product, source=self.config.products[product].source,
                targets={product: target}, settings=settings_digest(self.config, product), versions={"strax": "2.2.3"},
                host="node12", seconds=seconds, cpu_seconds=seconds, peak_rss_mb=1400,
            )  # fmt: skip
        elif step == "checksum":
            receipt = Checksums(
                run=run, made=made, product=product, algorithm="xxh128", files=[(f"{folder}/0", part, "0" * 32)],
                list_file="xxh128sums.txt", seconds=seconds,
            )  # fmt: skip
        elif step == "move_out":
            receipt = Stored(
                run=run, made=made, product=product, site=self.config.site, location=str(self.config.store.folder),
                folders=[folder], bytes=part, seconds=seconds,
            )  # fmt: skip
        else:
            receipt = Registered(run=run, made=made, product=product, entries=[])
        place = self.state.released(run) if step == "release" else self.state.path(run, product, type(receipt))
        place.parent.mkdir(parents=True, exist_ok=True)
        _write(place, receipt)
        os.utime(place, (made.timestamp(), made.timestamp()))


def _write(path: Path, content: BaseModel) -> None:
    # thousands of files, none worth waiting for the disk
    path.write_text(content.model_dump_json(indent=1), encoding="utf-8")
