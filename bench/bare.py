"""What a user would write instead of straxflow: bench/bare_loop.sh, on runs of the simulated DAQ."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.measure import Sample, run
from bench.site import Lab
from straxflow.config.load import ROOT

SCRIPT = Path(__file__).with_name("bare_loop.sh")
NO_MORE: Mapping[str, str] = {}


def loop(
    lab: Lab,
    daq: Path,
    documents: Mapping[str, dict[str, Any]],
    work: Path,
    strax: Sequence[str],
    environment: Mapping[str, str] = NO_MORE,
) -> Sample:
    """Bring in and process the runs of these documents, one after the other, into the new folder `work`.

    `strax` is what the script takes of it: Python, workers, context, data types; its output is in `work`/log.
    """
    work.mkdir()
    for one, document in documents.items():
        facts = json.dumps({"run": one, **document}, default=lambda t: t.isoformat())
        (work / f"{one}.json").write_text(facts)
    ssh = " ".join(["ssh", *lab.sshd.ssh_options])
    argv = [str(SCRIPT), f"{lab.sshd.host}:{daq}", str(work), ssh, *strax, *documents]
    everything = {**os.environ, **environment, "PYTHONPATH": str(ROOT)}
    return run(argv, cwd=ROOT, env=everything, log=work / "log")
