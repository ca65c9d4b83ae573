"""A site with a made-up past, for looking at the status page: `python tools/dashboard_site.py FOLDER [--port N]`."""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy
import yaml
from pymongo import MongoClient

from straxflow.cli.site import Site
from straxflow.config import load
from straxflow.dashboard.server import listen
from straxflow.detectors.demo_summary import histogram
from straxflow.folders import init_folders
from straxflow.lab.history import History
from straxflow.lab.rundb_server import RunDbServer
from straxflow.owner import Owner
from straxflow.receipts import Registered, now
from straxflow.rundb.client import connect

MODES = ["background"] * 7 + ["calibration_kr83m"] * 3 + ["led", "noise"]
TRANSFER_BROKE = (
    "rsync: [receiver] write failed on 000017/reader_1: No space left on device (28); the copy here was not published"
)
STRAX_BROKE = "strax could not make peaks: ValueError: hits are not sorted in time (chunk 23); see the log"
TRACE = """\
  File "strax/plugins/plugin.py", line 704, in do_compute
    result = self.compute(**kwargs)
  File "xenonlab/peaks.py", line 88, in compute
    raise ValueError("hits are not sorted in time (chunk 23)")
"""


@contextmanager
def made_up(folder: Path, runs: int = 260) -> Iterator[tuple[Site, History]]:
    """A site in a folder, with a run database of its own."""
    with RunDbServer(folder / "rundb") as rundb:
        settings = {
            "site": "stoomboot",
            "experiment": "xams",
            "folders": {name: str(folder / name) for name in ("state", "live", "staging")},
            "store": {"folder": str(folder / "store"), "min_free_gb": 1},
            "rundb": {"uri": rundb.uri},
            "daq": {"host": "xams-daq", "folder": str(folder)},
            "runs": {"min_run_number": 1},
            "products": {
                "raw_records": {"from": "live"},
                "peaks": {"from": "raw_records", "modes": {"exclude": ["led"]}},
                "events": {"from": "peaks", "modes": {"exclude": ["led", "noise"]}},
                "led_calibration": {"from": "raw_records", "modes": {"include": ["led"]}},
            },
        }
        (folder / "site.yaml").write_text(yaml.safe_dump(settings))
        site = Site(load(settings), "online", "none", "site.yaml")
        init_folders(site.config, site.state)
        client: MongoClient[dict[str, object]] = MongoClient(rundb.uri, tz_aware=True)
        owner = replace(Owner.current(), host="stbc-i1")
        history = History(site.config, site.state, client["run"]["runs"], owner=owner)
        fill(history, runs)
        monitor(site, history)
        yield site, history


def fill(history: History, runs: int) -> None:
    """Weeks of runs, the last hours in the middle of their work."""
    dice = random.Random(4)
    moment = now()
    last = 4211
    end = moment - timedelta(minutes=2)
    for i in range(runs):
        number = last - i
        mode = dice.choice(MODES)
        if i == 0:
            history.runs.insert_one({"number": number, "start": moment - timedelta(minutes=17), "mode": "background"})
            continue
        tags = [{"name": "hold-processing", "user": "ana", "date": end}] if i == 9 else []
        run = history.run(number, mode, end, "done" if i > 8 and i not in (9, 12, 27, 60) else "pending", tags=tags)
        at = end + timedelta(minutes=1)
        end -= timedelta(minutes=dice.uniform(25, 38) if i < 170 else dice.uniform(40, 300))
        if i in (1, 2, 9):
            continue
        history.facts(run, number)
        if i in (3, 4, 5, 6, 7, 8):
            batch = "20261121T0602-7f31" if i < 6 else "20261121T0540-c2a9"
            history.claim(number, run, batch, moment - timedelta(minutes=5 if i < 6 else 27))
            began = moment - timedelta(minutes=3 + 2 * i)
            steps = {3: 0, 4: 2, 5: 3, 6: 6, 7: 8, 8: 13}[i]
            at = history.chain(run, began, steps) if steps else began
            product, step = {3: ("live", "transfer"), 4: ("raw_records", "process")}.get(i, ("peaks", "process"))
            if i != 8:
                history.step(run, product, step, moment - timedelta(seconds=50), None)
            continue
        if i in (12, 27, 60):
            steps = {12: 0, 27: 6, 60: 6}[i]
            at = history.chain(run, at, steps) if steps else at
            if i == 12:
                at = history.step(run, "live", "transfer", at, "failed", TRANSFER_BROKE)
                reason = f"transfer of live: {TRANSFER_BROKE}"
            else:
                at = history.step(run, "peaks", "process", at, "failed", STRAX_BROKE, TRACE)
                reason = f"process of peaks: {STRAX_BROKE}"
            status = {"status": "failed", "time": at, "host": "stbc-i1", "reason": reason}
            ours = {"failures": i // 12, "due": moment + timedelta(minutes=i)}
            history.runs.update_one(
                {"number": number}, {"$set": {"processing_status": status, "straxflow.online": ours}}
            )
            continue
        history.chain(run, at)


def monitor(site: Site, history: History, runs: int = 60) -> None:
    """Summaries of the newest runs with events."""
    dice = random.Random(5)
    with connect(site.config) as db:
        done = [run for run in sorted(site.state.all_runs()) if site.state.path(run, "events", Registered).is_file()]
        for run in done[-runs:]:
            facts = site.state.facts(run)
            rate = {"background": 4.1, "calibration_kr83m": 38}[facts.mode] * dice.uniform(0.95, 1.05)
            events = int(rate * facts.seconds)
            drift = numpy.random.default_rng(events).triangular(4, 40, 62, min(events, 4000))
            values = {
                "events": events, "rate (Hz)": rate, "median S1 (PE)": dice.gauss(121, 4),
                "median S2 (PE)": dice.gauss(4650, 60), "longest drift (µs)": dice.gauss(61.8, 0.1),
            }  # fmt: skip
            history.summary(db, run, "events", values, histogram(drift, "drift time (µs)", "events"))
        db.ours("watchers").insert_one(
            {
                "_id": "stoomboot/online",
                "site": "stoomboot",
                "campaign": "online",
                "user": "xams",
                "owner": history.owner.as_dict(),
                "since": now(),
                "renewed": now(),
                "lease_s": 600,
            }
        )


def main() -> None:
    """Serve it until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=8080)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True)
    with made_up(arguments.folder) as (site, _):
        serving = listen(site, "127.0.0.1", arguments.port)
        print(serving.url, flush=True)
        try:
            serving.run()
        except KeyboardInterrupt:
            serving.close()


if __name__ == "__main__":
    main()
