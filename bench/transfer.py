"""The verified transfer against a plain `rsync -a --fsync`, both over the same ssh."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

from bench.measure import Sample, in_turn, measure, run
from bench.result import Result, compare, times
from bench.site import Lab
from straxflow.transport import Place, pull
from straxflow.transport.ssh import command

GOAL = 1.10
SETS = ((20, 50.0), (1000, 1.0))
SHARED = "CPU is that of this side, without the background process of straxflow's shared ssh connection."
REPETITIONS, QUICK_REPETITIONS = 5, 3


def bench(lab: Lab, quick: bool) -> Result:
    """Measure both for few large and for many small files."""
    judged, tables = [], []
    for count, size_mb in SETS:
        count = count // 10 if quick else count
        name = f"{count} x {size_mb:g} MB"
        source = lab.folder / "source"
        _fill(source, count, size_mb)
        result = in_turn(_cases(lab, source), QUICK_REPETITIONS if quick else REPETITIONS)
        shutil.rmtree(source)
        verified, plain = result["verified"], result["rsync --fsync"]
        judged.append(compare(f"transfer of {name}, by rsync --fsync", verified, plain, GOAL))
        tables.append(times(name, [verified, plain]))
    return Result(
        "transfer",
        "straxflow.transport.pull against `rsync -a --fsync`, over ssh on loopback; random bytes, the sender's page "
        "cache warm; the live-data check is not part of it",
        judged,
        tables,
        [SHARED],
    )


def _cases(lab: Lab, source: Path) -> dict[str, Callable[[int], Sample]]:
    ssh = lab.sshd.ssh_options
    target = lab.folder / "target"

    def verified(_: int) -> Sample:
        try:
            return measure(lambda: pull(Place(str(source), lab.sshd.host), target, ssh_options=ssh))
        finally:
            shutil.rmtree(target)

    def plain(_: int) -> Sample:
        try:
            argv = [
                "rsync",
                "-a",
                "--fsync",
                "-e",
                shlex.join(command(ssh)),
                f"{lab.sshd.host}:{source}/",
                f"{target}/",
            ]
            return run(argv)
        finally:
            shutil.rmtree(target)

    return {"verified": verified, "rsync --fsync": plain}


def _fill(folder: Path, count: int, size_mb: float) -> None:
    """Files as a DAQ leaves them: compressed, hence random bytes; ten to a folder."""
    for i in range(count):
        file = folder / f"{i // 10:06d}" / f"reader0_{i % 10}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.urandom(int(size_mb * 1e6)))
