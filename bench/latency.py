"""From the end of a run at the DAQ to its first job and to its registration, at a site that a watcher keeps going."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from bench.measure import cpu_of
from bench.result import Result, judge, judge_all, parts
from bench.site import Lab, Site, make_site
from straxflow.attempts import all_of
from straxflow.batch import Batch, batch_file
from straxflow.config.load import ROOT
from straxflow.lab.daq import Daq, RunPlan
from straxflow.watch.invocations import WATCH, Record

GOAL_S = 5.0
RUNS, QUICK_RUNS = 5, 2
SIZES_MB, QUICK_SIZES_MB = (50.0, 500.0), (5.0,)
PATIENCE_S = 120.0
IDLE_S, QUICK_IDLE_S = 30.0, 5.0
IDLE_GOAL = 1.0
"""Percent of a core, of a watcher that has nothing to do."""


def bench(lab: Lab, quick: bool) -> Result:
    """Take runs one after another; each ends while the one before is still released."""
    judged, tables = [], []
    for size_mb in QUICK_SIZES_MB if quick else SIZES_MB:
        found, idle = _runs(lab, size_mb, QUICK_RUNS if quick else RUNS, QUICK_IDLE_S if quick else IDLE_S)
        first = [one["first job"] for one in found]
        last = [one["registered"] for one in found]
        judged += [
            judge_all(f"end of a {size_mb:g} MB run to its first job", first, GOAL_S, " s"),
            judge_all(f"end of a {size_mb:g} MB run to registered", last, None, " s"),
        ]
        tables.append(parts(f"Run of {size_mb:g} MB: time since its end, s", found))
    judged.append(judge("an idle watcher, CPU in percent of a core", idle, IDLE_GOAL, ""))
    return Result(
        "latency",
        "`straxflow --profile local watch` (poll_s: 1) at a site whose DAQ takes runs; each ends when the one before "
        "was registered, while its invocation still works; then nothing happens for a while",
        judged,
        tables,
        [],
    )


def _runs(lab: Lab, size_mb: float, count: int, idle_s: float) -> tuple[list[dict[str, float]], float]:
    """What came when after the end of each run; and how busy the watcher is afterwards, percent of a core."""
    daq = lab.folder / f"daq_latency{size_mb:g}"
    site = make_site(lab, f"latency{size_mb:g}", daq, {"watch": {"poll_s": 1}})
    taker = Daq(daq, None, "demo-daq")
    # written beforehand: the DAQ is not to take part of the time that is measured
    documents = [taker.take(RunPlan(n, size_mb=size_mb, seed=n))[0] for n in range(1, count + 2)]
    found = []
    with _watcher(site) as watcher:
        for document in documents:
            ended = time.time()
            lab.runs(site.name).insert_one(document)
            found.append(_seen(site, f"{document['number']:06d}", ended))
        _until(site, f"{count + 1:06d}", "release", "ended")
        time.sleep(5)  # the invocation ends, and the watcher looks after it
        before = cpu_of(watcher)
        time.sleep(idle_s)
        busy = cpu_of(watcher) - before
    # nothing was at work when the first one ended
    return found[1:], 100 * busy / idle_s


@contextlib.contextmanager
def _watcher(site: Site) -> Iterator[int]:
    words = ["straxflow", "--profile", "local", "--configfile", str(site.file), "watch"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    with (site.folder / "watch.log").open("wb") as log:
        process = subprocess.Popen(
            words, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _seen(site: Site, run: str, ended: float) -> dict[str, float]:
    first = _until(site, run, "transfer", "started")
    batch = next(file.attempt.batch for file in all_of(site.state, run))
    record = Record.model_validate_json((site.state.folder / WATCH / batch / "invocation.json").read_text())
    claimed = Batch.model_validate_json((site.state.folder / batch_file(batch)).read_text()).made
    return {
        "an invocation is started": record.started.timestamp() - ended,
        "it has claimed the run": claimed.timestamp() - ended,
        "first job": first - ended,
        "registered": _until(site, run, "register", "ended") - ended,
    }


def _until(site: Site, run: str, step: str, moment: str) -> float:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for file in all_of(site.state, run):
            when: Any = getattr(file.attempt, moment)
            if file.attempt.step == step and when is not None:
                return float(when.timestamp())
        time.sleep(0.05)
    raise RuntimeError(f"run {run}: no {step} {moment} within {PATIENCE_S:g} s; see {site.folder}/watch.log")
