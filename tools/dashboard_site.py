"""A site with a made-up past, for looking at the status page without months of data taking.

python tools/dashboard_site.py --port 8080                    serves it until interrupted
python tools/dashboard_site.py --picture docs/dashboard.png   makes the picture in the documentation
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy
import yaml
from pymongo import MongoClient
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from straxflow.cli.site import Site
from straxflow.config import load
from straxflow.dashboard.server import in_background, listen
from straxflow.detectors.demo_summary import histogram
from straxflow.folders import init_folders
from straxflow.lab.history import History
from straxflow.lab.rundb_server import RunDbServer
from straxflow.owner import Owner
from straxflow.receipts import Registered, now
from straxflow.rundb.client import connect

MODES = ["background"] * 7 + ["calibration_kr83m"] * 3 + ["led", "noise"]
LAST = 4211
SIZE = 1340, 1080
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

AT_WORK: dict[int, tuple[str, int, tuple[str, str] | None]] = {
    4: ("20261121T0602-7f31", 1, None),
    5: ("20261121T0602-7f31", 2, ("raw_records", "process")),
    6: ("20261121T0602-7f31", 6, ("peaks", "process")),
    7: ("20261121T0540-c2a9", 9, ("peaks", "move_out")),
    8: ("20261121T0540-c2a9", 13, None),
}
"""By age: the invocation, how many steps are done, and which one is running."""
FAILED = {
    13: (0, "live", "transfer", TRANSFER_BROKE, "", 1),
    31: (6, "peaks", "process", STRAX_BROKE, TRACE, 3),
}
"""By age: how many steps are done, and how the next one failed."""


@contextmanager
def made_up(folder: Path, runs: int = 700) -> Iterator[Site]:
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
        yield site


def fill(history: History, runs: int) -> None:
    """Weeks of runs, the last ones in the middle of their work."""
    dice = random.Random(4)
    moment = now()
    end = moment - timedelta(minutes=4)
    history.runs.insert_one({"number": LAST, "start": end, "mode": "background"})
    for i in range(1, runs):
        # some days are busier than others
        busy = random.Random((moment - end).days).uniform(0.35, 1)
        mode, number = dice.choice(MODES), LAST - i
        status = "pending" if i in (1, 2, 3) else "done"
        run = history.run(number, "background" if i < 9 or i in FAILED else mode, end, status)
        at, end = end + timedelta(seconds=20), end - timedelta(minutes=dice.uniform(10.5, 14) / busy)
        if i == 2:
            tag = {"name": "hold-processing", "user": "ana", "date": at}
            history.runs.update_one({"number": number}, {"$set": {"tags": [tag]}})
        if i == 3:
            wait = moment + timedelta(minutes=2)
            history.runs.update_one({"number": number}, {"$set": {"straxflow.online.wait_until": wait}})
        if i > 3:
            history.facts(run, number)
            _work(history, i, run, number, at, moment)


def _work(history: History, i: int, run: str, number: int, at: datetime, moment: datetime) -> None:
    if i in AT_WORK:
        batch, steps, running = AT_WORK[i]
        history.claim(number, run, batch, moment - timedelta(minutes=6))
        history.chain(run, moment - timedelta(minutes=5), steps)
        if running:
            history.step(run, *running, moment - timedelta(seconds=50), None)
    elif i in FAILED:
        steps, product, step, reason, words, failures = FAILED[i]
        at = history.chain(run, at, steps) if steps else at
        at = history.step(run, product, step, at, "failed", reason, words)
        status = {"status": "failed", "time": at, "host": "stbc-i1", "reason": f"{step} of {product}: {reason}"}
        ours = {"failures": failures, "due": moment + timedelta(minutes=5 * failures)}
        history.runs.update_one({"number": number}, {"$set": {"processing_status": status, "straxflow.online": ours}})
    else:
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


def picture(url: str, file: Path) -> None:
    """What a browser shows. Wants Debian's pngquant, and fonts-roboto-unhinted to look as on most screens."""
    options = Options()
    options.binary_location = shutil.which("chromium") or ""
    width, height = SIZE
    for word in ("headless=new", "no-sandbox", "hide-scrollbars", f"window-size={width},{height}"):
        options.add_argument(f"--{word}")
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.get(url)
        while not driver.find_elements(By.CSS_SELECTOR, "img.plot") or not driver.find_elements(By.TAG_NAME, "rect"):
            time.sleep(0.2)
        time.sleep(2.9)
        driver.save_screenshot(str(file))
        # a quarter of the size, to the eye the same
        subprocess.run(["pngquant", "--force", "--output", str(file), "256", str(file)], check=True)
    finally:
        driver.quit()


def main() -> None:
    """Serve it until interrupted, or make the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--picture", type=Path, metavar="FILE", help="make a picture of it, and end")
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="stoomboot") as folder, made_up(Path(folder)) as site:
        if arguments.picture:
            with in_background(site) as serving:
                picture(serving.url, arguments.picture)
        else:
            serving = listen(site, "127.0.0.1", arguments.port)
            print(serving.url, flush=True)
            serving.run()


if __name__ == "__main__":
    main()
