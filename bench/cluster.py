"""A private Slurm for the benches: the profile `stoomboot` on it, its clients counted, the CPU of its jobs known."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from bench.measure import Sample, run
from bench.site import Site
from straxflow.config.load import ROOT
from straxflow.lab.slurm import CLIENTS, Slurm

Settings = Mapping[str, Any]
STEPS = ("process", "checksum", "move_out")
"""Done by batch jobs; all others on the head node."""
SMALL = {"resources": {step: {"mem_mb": 500, "runtime_min": 1} for step in STEPS}}
"""What they need of it, in a site's configuration, where runs are small."""
EACH_RUN: Settings = {"groups": [f"{step}=run_{{run}}" for step in STEPS]}
CPU_NOTE = (
    "CPU of the batch jobs is what the daemon of each Slurm step had waited for at its end, without Slurm's own "
    "daemons. Slurm's clients were counted by wrappers on the PATH."
)

# Slurm calls it as the child of each step's daemon, when that has waited for all that the step has run
EPILOG = """\
#!/bin/sh
read -r line <"/proc/$PPID/stat"
echo "$line" >>{file}
"""


def many_runs(together: int) -> Settings:
    """What a profile says for so many runs in one batch job, two steps of them at once."""
    return {
        "groups": [f"{step}=runs" for step in STEPS],
        "group-components": [f"runs={together}"],
        "cores": 2,
        "resources": ["mem_mb=1500"],
        "set-resource-scopes": ["mem_mb=local"],
    }


@dataclass(frozen=True)
class Invocation:
    """One on Slurm: its main process with the jobs on the head node; CPU of its batch jobs, s; calls of Slurm's
    clients by name."""

    main: Sample
    jobs_cpu: float
    calls: Mapping[str, int]

    @property
    def whole(self) -> Sample:
        """With the CPU of the batch jobs, whose memory is not known."""
        return replace(self.main, cpu=self.main.cpu + self.jobs_cpu, peak_mb=0.0)


@dataclass(frozen=True)
class Cluster:
    """The Slurm, and the file in which its steps tell of themselves as they end."""

    slurm: Slurm
    ended: Path

    def __str__(self) -> str:
        """In words, for a report."""
        return f"{self.slurm.nodes} nodes of {self.slurm.cpus} CPUs, on the same {os.cpu_count()} cores"


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """Start a Slurm in a folder of its own, which is removed at the end."""
    # the sockets of its daemons want a short path
    folder = Path(tempfile.mkdtemp(prefix="straxflow-"))
    try:
        ended, epilog = folder / "steps", folder / "epilog"
        epilog.write_text(EPILOG.format(file=ended))
        epilog.chmod(0o755)
        with Slurm(folder / "slurm", extra=f"TaskEpilog={epilog}") as slurm:
            yield Cluster(slurm, ended)
    finally:
        shutil.rmtree(folder)


class Submitter:
    """Invocations for one site on a cluster, by a copy of the profile `stoomboot` with these settings."""

    def __init__(self, cluster: Cluster, site: Site, settings: Settings) -> None:
        self._cluster, self._log = cluster, site.folder / "snakemake.log"
        self._calls = site.folder / "calls"
        self._environment = _counted(cluster.slurm, site.folder / "bin", self._calls)
        self._argv = ["snakemake", "--profile", str(_profile(site, settings)), "--configfile", str(site.file)]

    def __call__(self) -> Invocation:
        """One more of them.

        Raises:
            RuntimeError: if it fails.
        """
        self._cluster.ended.write_text("")
        self._calls.write_text("")
        os.sync()
        main = run(self._argv, cwd=ROOT, env=self._environment, log=self._log)
        called = Counter(self._calls.read_text().split())
        return Invocation(main, cpu_of_steps(self._cluster.ended.read_text()), called)


def _profile(site: Site, settings: Settings) -> Path:
    """A copy of the profile `stoomboot` that goes with this site."""
    profile = yaml.safe_load((ROOT / "profiles/stoomboot/config.yaml").read_text())
    profile |= {"config": {"head_node": ["transfer"]}, "slurm-logdir": str(site.folder / "slurm-logs"), **settings}
    folder = site.folder / "profile"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(profile))
    return folder


def _counted(slurm: Slurm, folder: Path, calls: Path) -> dict[str, str]:
    """An environment in which each call of a Slurm client adds its name to `calls`."""
    folder.mkdir()
    for name in CLIENTS:
        wrapper = folder / name
        wrapper.write_text(f'#!/bin/sh\necho {name} >>{calls}\nexec {slurm.folder}/bin/{name} "$@"\n')
        wrapper.chmod(0o755)
    environment = {k: v for k, v in slurm.env.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return {**environment, "PATH": f"{folder}:{environment['PATH']}"}


def cpu_of_steps(lines: str) -> float:
    """CPU seconds of Slurm steps with all that they ran, from the /proc/PID/stat of their daemons at their end."""
    ticks = 0
    for line in lines.splitlines():
        # the name, in brackets, may hold blanks; utime, stime, cutime and cstime are fields 14 to 17
        ticks += sum(map(int, line.rpartition(")")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")
