"""A private straxflow site in a folder: run database, sshd, DAQ, and folders of its own for each repetition."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pymongo import MongoClient
from pymongo.collection import Collection

from bench.measure import Sample, run
from straxflow.attempts import all_of
from straxflow.config import Config, load_files
from straxflow.config.load import ROOT
from straxflow.folders import init_folders
from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from straxflow.receipts import State

Document = dict[str, Any]
AT_ONCE = 500
"""The most runs that an invocation may claim."""
COPY = {"copy": {"from": "live", "kind": "command", "command": "cp -r {source}/{run} {output}"}}
"""The least that can be made of a run: what it costs beyond that is the engine's."""


@dataclass(frozen=True)
class Lab:
    """The parts that all repetitions share."""

    folder: Path
    rundb: RunDbServer
    sshd: Sshd

    def runs(self, database: str) -> Collection[Document]:
        """The run documents of a database."""
        client: MongoClient[Document] = MongoClient(self.rundb.uri, tz_aware=True)
        return client[database]["runs"]


@contextlib.contextmanager
def lab(folder: Path) -> Iterator[Lab]:
    """Start the parts in `folder`, which is removed at the end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with RunDbServer(folder / "rundb", memory_mb=2000) as rundb, Sshd(folder / "sshd") as sshd:
            yield Lab(folder, rundb, sshd)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Site:
    """One deployment: its config file and its folders."""

    lab: Lab
    name: str
    config: Config
    state: State
    file: Path

    @property
    def folder(self) -> Path:
        """Where all of it stands."""
        return self.file.parent

    def snakemake(self, *arguments: str, profile: str = "local", program: Sequence[str] = ("snakemake",)) -> Sample:
        """The workflow, as a user calls it from the repository, or by another `program` with the same arguments.

        Raises:
            RuntimeError: if it fails.
        """
        argv = [*program, "--profile", profile, "--configfile", str(self.file), *arguments]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        return run(argv, cwd=ROOT, env=environment, log=self.folder / "snakemake.log")

    def remove(self) -> None:
        """Remove its folders; the DAQ's stay."""
        shutil.rmtree(self.folder)


def make_site(lab: Lab, name: str, daq: Path, changes: Document | None = None) -> Site:
    """A new site with empty folders, on a database of its own name."""
    folder = lab.folder / name
    folder.mkdir()
    settings: Document = {
        "site": "bench",
        "experiment": "demo",
        "folders": {kind: str(folder / kind) for kind in ("state", "live", "staging")},
        "store": {"folder": str(folder / "store")},
        "rundb": {"uri": lab.rundb.uri, "database": name},
        "daq": {
            "host": "demo-daq",
            "ssh": lab.sshd.host,
            "ssh_options": lab.sshd.ssh_options,
            "folder": str(daq),
        },
        "transfer": {"length_tolerance_s": 0.1},
        "runs": {"min_run_number": 1, "settle_s": 0},
        "strax": {"max_gap_s": 1},
        "products": {"raw_records": {"from": "live"}},
    }
    for key, value in (changes or {}).items():
        settings[key] = {**settings.get(key, {}), **value} if key == "rundb" else value
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(settings))
    config = load_files([file])
    state = State(config.folders.state / "online")
    init_folders(config, state)
    return Site(lab, name, config, state, file)


def job_seconds(site: Site) -> dict[str, float]:
    """Wall clock of the jobs by rule, from snakemake's benchmark files; several jobs of a rule are added up."""
    names = {"live.register": "register_live", "live.transfer": "transfer"}
    found: dict[str, float] = {}
    for file in sorted((site.state.folder / "benchmarks").rglob("*.tsv")):
        stem = file.stem
        rule = "claim" if file.parent.name == "batches" else names.get(stem, stem.rpartition(".")[2])
        found[rule] = found.get(rule, 0.0) + float(file.read_text().splitlines()[1].split("\t")[0])
    return found


def step_seconds(site: Site, what: str = "seconds") -> dict[str, float]:
    """Wall clock inside of the steps, or their CPU (`cpu_seconds`), from the attempts; those of all runs added up."""
    found: dict[str, float] = {}
    for name in site.state.all_runs():
        for file in all_of(site.state, name):
            attempt = file.attempt
            found[attempt.step] = found.get(attempt.step, 0.0) + (getattr(attempt, what) or 0.0)
    return found
