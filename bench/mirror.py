"""What the status mirror costs the main process: jobs are played, their events, attempts and receipts are real."""

from __future__ import annotations

import logging
import time
from itertools import count
from pathlib import Path
from typing import Any

from bench.result import Result, judge
from bench.site import Lab, Site, make_site
from straxflow import claimfile, mirror
from straxflow.attempts import AttemptFile
from straxflow.lab.daq import RunPlan
from straxflow.lab.daq.daq import run_document
from straxflow.mirror import Hints, Mirror
from straxflow.owner import Owner
from straxflow.plan import RECEIPTS
from straxflow.receipts import now, write
from straxflow.rundb.claims import Claimer
from straxflow.rundb.client import connect

RUNS, QUICK_RUNS = 20, 4
PRODUCTS = ("one", "two", "three")
LIMIT_MS = 5
BATCH = "bench"


def bench(lab: Lab, quick: bool) -> Result:
    """Play the jobs of some runs, once so slowly that each event is written by itself, once as fast as they come."""
    runs = QUICK_RUNS if quick else RUNS
    alone, jobs = _play(lab, "mirror_alone", runs, every_s=0.005, pause_s=0.02)
    together, _ = _play(lab, "mirror_together", runs, every_s=mirror.EVERY_S, pause_s=0.005)
    return Result(
        "mirror",
        f"{runs} runs with {len(PRODUCTS)} products, {jobs} jobs played, all events, attempts and receipts real; CPU "
        "of the mirror's thread and of its log handler",
        [
            judge("main process CPU a job, every event written by itself", alone * 1e3, LIMIT_MS, " ms"),
            judge("main process CPU a job, written once a second a run", together * 1e3, LIMIT_MS, " ms"),
        ],
        [],
    )


def _play(lab: Lab, name: str, runs: int, every_s: float, pause_s: float) -> tuple[float, int]:
    """CPU seconds a job, and the number of jobs."""
    line = {"from": "live", "kind": "command", "command": "true"}
    site = make_site(lab, name, lab.folder / "daq_none", {"products": dict.fromkeys(PRODUCTS, line)})
    _claim(lab, site, runs)
    usual, mirror.EVERY_S = mirror.EVERY_S, every_s
    told = Mirror(site.config, site.state, "online", BATCH)
    hints = Hints(told)
    told.start()
    jobs, handler_s = 0, 0.0
    numbers = count(1)
    try:
        for product, step, receipt in _chain():
            for run in sorted(site.state.all_runs()):
                job = next(numbers)
                handler_s += _emit(hints, event="job_info", jobid=job, wildcards={"run": run, "product": product})
                attempt = AttemptFile.start(site.state, run, product, step, BATCH, f"logs/{run}/{step}.log")
                time.sleep(pause_s)
                path = site.state.run(run) / product / receipt
                path.write_text("{}")
                attempt.end("ok", exit_code=0)
                handler_s += _emit(hints, event="job_finished", job_id=job)
                time.sleep(pause_s)
                jobs += 1
        time.sleep(2 * mirror.EVERY_S)
    finally:
        told.stop()
        mirror.EVERY_S = usual
    return (told.cpu_seconds + handler_s) / jobs, jobs


def _chain() -> list[tuple[str, str, str]]:
    live = [("live", "transfer", "transferred.json"), ("live", "register_live", "registered.json")]
    return live + [(product, step, model.name) for product in PRODUCTS for step, model in RECEIPTS.items()]


def _emit(hints: Hints, **fields: Any) -> float:
    record = logging.LogRecord("bench", logging.INFO, __file__, 1, "", None, None)
    vars(record).update(fields)
    began = time.thread_time()
    hints.handle(record)
    return time.thread_time() - began


def _claim(lab: Lab, site: Site, runs: int) -> None:
    for number in range(1, runs + 1):
        document = run_document(RunPlan(number, duration_s=2), Path("/nowhere"), "demo-daq", "bench", now())
        lab.runs(site.name).insert_one({**document, "end": document["start"]})
    owner = Owner.current()
    with connect(site.config) as db:
        claimed = Claimer(db, site.config, "online", BATCH, owner).claim_pending(lambda _: True, print)
    for one in claimed:
        claim = claimfile.ClaimFile(run=one.run.id, token=one.token, batch=BATCH, owner=owner.as_dict())
        claimfile.write(site.state, claim)
        write(site.state.run(one.run.id) / "run.json", one.run.facts)
        for product in ("live", *PRODUCTS):
            (site.state.run(one.run.id) / product).mkdir()
