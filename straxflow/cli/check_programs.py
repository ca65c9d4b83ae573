"""Checks of the DAQ's disk and of the programs that move data and run jobs: ssh, rsync, snakemake, Slurm."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from straxflow.cli.site import Site
from straxflow.daqfolder import daq_top
from straxflow.errors import StepFailed
from straxflow.reports.verdict import Check, Verdict, failed, ok
from straxflow.transport import ssh
from straxflow.transport.streams import WINDOW, worth_having

SSH_S = 20
RSYNC = (3, 2)
# a constant text; the folder arrives as an argument
_LOOK = 'cd -- "$1" || exit 3; ls >/dev/null || exit 4; rsync --version || exit 5'


def checks(site: Site) -> list[Check]:
    """Checks of what this site's steps and executor use."""
    found = [Check("rsync", lambda: [_rsync_here()]), Check("snakemake", lambda: [_snakemake(site)])]
    if "transfer" in site.config.steps:
        found.append(Check("daq", lambda: _daq(site), timeout_s=2 * SSH_S + 10))
    if site.profile_settings.get("executor") == "slurm":
        found.append(Check("slurm", lambda: _slurm(site)))
    return found


def _daq(site: Site) -> Iterator[Verdict]:
    daq, folder = site.config.daq, daq_top(site.config)
    if daq.ssh is not None:
        yield (verdict := _daq_by_ssh(site, daq.ssh, folder))
        if verdict.level == "ok":
            yield _line(site, daq.ssh)
    elif os.access(folder, os.R_OK | os.X_OK):
        yield ok("daq", f"{folder}: readable")
    else:
        yield failed("daq", f"{folder}: not there, or not readable", "is the DAQ's disk mounted?")


def _line(site: Site, host: str) -> Verdict:
    """What one connection can bring over the line, and whether more of them would bring more."""
    seconds = ssh.round_trip(host, site.config.daq.ssh_options)
    streams, wanted = site.config.transfer.streams, worth_having(seconds)
    found = f"{host}: a round trip takes {1e3 * seconds:.1f} ms"
    if wanted > 1:
        found += f", so one connection brings {WINDOW / seconds / 1e6:.0f} MB/s at most"
    set_to = f" (it is {streams})" if streams != wanted else ""
    return ok("line", f"{found}: best with transfer.streams: {wanted}{set_to}")


def _daq_by_ssh(site: Site, host: str, folder: Path) -> Verdict:
    daq = site.config.daq
    where = f"{host}:{folder}"
    options = [*daq.ssh_options, "-o", "ConnectTimeout=10"]
    result = ssh.run(host, options, ["sh", "-c", _LOOK, "straxflow", str(folder)], timeout_s=SSH_S)
    if result.code in (3, 4):
        return failed("daq", f"{where}: {result.err.strip()}", "correct daq.folder, or its permissions there")
    if result.code not in (0, 5):
        return failed(
            "daq", f"{where}: sh does not run there: {result.err.strip()}", "let its key run sh, find and rsync"
        )
    if result.code:
        return failed("daq", f"{where}: rsync does not run there: {result.err.strip()}", "install rsync there")
    return _rsync_verdict("daq", f"{where}: readable, ", result.out.decode(errors="replace"))


def _rsync_here() -> Verdict:
    return _rsync_verdict("rsync", "", _output(["rsync", "--version"]))


def _rsync_verdict(part: str, before: str, shown: str) -> Verdict:
    found = re.search(r"version v?(\d+)\.(\d+)(\S*)", shown)
    if not found:
        return failed(part, f"{before}rsync does not tell its version", "install rsync 3.2 or later")
    text = f"{before}rsync {found[1]}.{found[2]}{found[3]}"
    if (int(found[1]), int(found[2])) < RSYNC:
        return failed(part, text, "3.2 or later is needed: older ones do not know xxh128")
    if "xxh128" not in shown:
        return failed(part, f"{text} without xxh128", "install an rsync built with xxhash")
    return ok(part, text)


def _snakemake(site: Site) -> Verdict:
    names = ["snakemake"]
    executor = site.profile_settings.get("executor")
    if executor and executor != "local":
        names.append(f"snakemake-executor-plugin-{executor}")
    texts = []
    for name in names:
        try:
            texts.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            return failed("snakemake", f"{name} is not installed in {sys.prefix}", f"pip install {name}")
    beside = Path(sys.executable).parent / "snakemake"
    if not (shutil.which("snakemake") or beside.exists()):
        return failed("snakemake", f"{', '.join(texts)}; but no snakemake command", "reinstall the environment")
    return ok("snakemake", ", ".join(texts))


def _slurm(site: Site) -> Iterator[Verdict]:
    for program in ("sbatch", "squeue", "scancel", "sinfo"):
        if not shutil.which(program):
            yield failed("slurm", f"there is no {program} here", "start this on a submit host of the cluster")
            return
    rows = [line.split() for line in _output(["sinfo", "--noheader", "--format=%R %a %l"]).splitlines()]
    up = {row[0] for row in rows if len(row) == 3 and row[1] == "up"}
    yield ok("slurm", f"sinfo answers; partitions up: {', '.join(sorted(up)) or 'none'}")
    for name in sorted(_partitions(site.profile_settings)):
        if name not in up:
            known = {row[0] for row in rows if row}
            what = "is down" if name in known else "does not exist"
            yield failed("slurm", f"partition {name} {what}", f"correct slurm_partition in profile {site.profile}")
    limits = {row[0]: minutes_of(row[2]) for row in rows if len(row) == 3 and row[1] == "up"}
    for place, entry in enumerate(site.config.resources.partitions):
        key = f"resources.partitions.{place}"
        for name in entry.partition.split(","):
            limit = limits.get(name)
            if name not in up:
                yield failed("slurm", f"partition {name} is not up, or does not exist", f"correct {key}")
            elif limit is not None and entry.up_to_min is not None and entry.up_to_min > limit:
                text = f"partition {name} allows {limit:g} minutes, and {key} gives it jobs of {entry.up_to_min}"
                yield failed("slurm", text, "these would wait for ever: lower up_to_min")


def minutes_of(limit: str) -> float | None:
    """A time limit as Slurm writes it (`30:00`, `1-12:00:00`, `infinite`), in minutes; None if there is none."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", limit)
    if not found:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return 24 * 60 * days + 60 * hours + minutes + seconds / 60


def _partitions(profile: Mapping[str, Any]) -> set[str]:
    """Partitions that a profile names, in default-resources or set-resources, as mapping or `key=value`."""
    settings = [profile.get("default-resources"), *_values(profile.get("set-resources"))]
    found = set()
    for resources in settings:
        if isinstance(resources, str):
            resources = [resources]
        if isinstance(resources, Sequence):
            pairs = (str(item).rpartition(":")[2].partition("=") for item in resources)
            resources = {key: value for key, _, value in pairs}
        if isinstance(resources, Mapping) and (name := resources.get("slurm_partition")):
            found.update(str(name).strip("\"'").split(","))
    return found


def _values(sets: Any) -> list[Any]:
    return list(sets.values()) if isinstance(sets, Mapping) else [sets]


def _output(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=15, check=False)
    except FileNotFoundError:
        raise StepFailed(f"{argv[0]} is not installed here") from None
    except subprocess.TimeoutExpired:
        raise StepFailed(f"{argv[0]} does not answer within 15 s") from None
    if done.returncode:
        raise StepFailed(f"{' '.join(argv)}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout
