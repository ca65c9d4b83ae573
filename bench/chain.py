"""The whole chain of one run, from the DAQ's disk to stored and registered, against a bare shell loop."""

from __future__ import annotations

import json
import re
import shutil
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.measure import Sample, in_turn, run
from bench.result import Goal, Result, comparison
from bench.site import Lab, Site, make_site
from straxflow.attempts import all_of
from straxflow.config.load import ROOT
from straxflow.lab.daq import Daq, RunPlan
from straxflow.receipts import Stored, Transferred
from straxflow.transport.ssh import command

RUN = "000001"
SIZE_MB, QUICK_MB = 500.0, 50.0
REPETITIONS, QUICK_REPETITIONS = 5, 2
GOAL = 1.15
HERE = Path(__file__).parent


def bench(lab: Lab, quick: bool) -> Result:
    """Measure both, in turn, and say where the difference goes."""
    size_mb = QUICK_MB if quick else SIZE_MB
    daq = lab.folder / "daq"
    document, summary = Daq(daq, None, "demo-daq").take(RunPlan(1, size_mb=size_mb))
    parts: list[dict[str, float]] = []
    bare_parts: list[dict[str, float]] = []

    def whole(i: int) -> Sample:
        site = make_site(lab, f"chain{i}", daq)
        lab.runs(site.name).insert_one(dict(document))
        began = datetime.now().timestamp()
        sample = site.snakemake()
        parts.append(where_it_goes(site, began, sample.wall))
        site.remove()
        return sample

    def bare(i: int) -> Sample:
        work = lab.folder / f"bare{i}"
        work.mkdir()
        facts = {"run": RUN, **document}
        (work / "run.json").write_text(json.dumps(facts, default=lambda t: t.isoformat()))
        arguments = [RUN, str(daq), str(work), sys.executable, *command(lab.sshd.ssh_options), "-l"]
        user, _, host = lab.sshd.host.partition("@")
        del host  # rsync gives it to ssh itself
        sample = run([str(HERE / "bare_loop.sh"), *arguments, user], cwd=ROOT, log=work / "log")
        lines = (work / "log").read_text().splitlines()
        bare_parts.append({k: float(v) for k, v in (x.split() for x in lines if re.fullmatch(r"\w+ [\d.]+", x))})
        shutil.rmtree(work)
        return sample

    # what is compiled and cached at the first use is not what is to be measured
    whole(-1)
    bare(-1)
    parts.clear()
    bare_parts.clear()
    series = in_turn({"straxflow": whole, "bare loop": bare}, QUICK_REPETITIONS if quick else REPETITIONS)
    return Result(
        "chain",
        f"One run of {summary.plain_bytes / 1e6:.0f} MB of records ({summary.disk_bytes / 1e6:.0f} MB on disk) to "
        "raw_records",
        [comparison("whole chain", series["straxflow"], series["bare loop"], Goal(GOAL))],
        [_table("Where straxflow's time goes", parts), _table("The bare loop's", bare_parts)],
    )
