"""The fork servers of an invocation, and of each of its batch jobs that does several rules: one for the steps, one for
strax, each as long as the snakemake lives that started it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from straxflow import inherited
from straxflow.config import Config
from straxflow.forks.start import Started
from straxflow.fsio import MARKER
from straxflow.owner import Owner
from straxflow.transport.ssh import CONNECTIONS, close_connections

log = logging.getLogger(__name__)

STEPS = "STRAXFLOW_STEPS"
STRAX = "STRAXFLOW_STRAX"
"""Where jobs find the servers."""
JOBS = "straxflow.steps.main"
"""The module of what jobs do; imported by their server, not here."""
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")}
"""While a server does its imports: threads do not survive a fork."""


def put_on_path(*folders: Path) -> None:
    """Let jobs find programs in these folders first: straxflow-step, and this Python, activated or not."""
    os.environ["PATH"] = os.pathsep.join([*map(str, folders), os.environ.get("PATH", os.defpath)])


@dataclass
class Servers:
    """Starts them when there is work for them, and lets jobs find them by the environment."""

    config: Config
    folder: Path
    batch: str
    _started: dict[str, Started] = field(default_factory=dict)
    _tried: bool = False

    def prepare(self) -> None:
        """Let what serves the jobs do its imports meanwhile, if the disk of the state folder is there."""
        if (self.folder / MARKER).is_file():
            self.start_steps()

    def forget(self) -> None:
        """Let jobs not find those of another snakemake: they start, and log in, by themselves."""
        for name in (STEPS, STRAX, CONNECTIONS):
            os.environ.pop(name, None)

    def serve_batch_job(self, jobs: Collection[tuple[str, Mapping[str, str]]]) -> None:
        """Let the jobs of this batch job, each a rule and its wildcards, share what they load, if there are several."""
        if len(jobs) < 2 or self._tried:
            return
        self._tried = True
        self.batch += f".{os.environ.get('SLURM_JOB_ID') or Owner.current().token()[-8:]}"
        self.start_steps()
        made = [self.config.products[wildcards["product"]] for rule, wildcards in jobs if rule == "process"]
        if sum(product.kind == "strax" for product in made) > 1:
            self.start_strax()

    def start_steps(self) -> None:
        """Serve the jobs of this machine."""
        if STEPS in self._started:
            return
        # the claim is the first job, and waits for no more than it needs
        preload, later = ["straxflow.steps.claim"], [f"{JOBS}:preload"]
        environment = os.environ | ONE_THREAD
        self._start(STEPS, sys.executable, f"{JOBS}:main", preload, environment, later=later, foresee=f"{JOBS}:foresee")
        if STEPS in self._started:
            # it goes with this server, whatever becomes of the main process
            os.environ[CONNECTIONS] = str(self._started[STEPS].folder)

    def start_strax(self) -> None:
        """Serve the process jobs of this machine; the first one that succeeds leaves what it compiled to the others."""
        python = strax_python(self.config)
        products = [product for product in self.config.products.values() if product.kind == "strax"]
        if python is None or not products or STRAX in self._started or "process" not in self.config.steps:
            return
        contexts = {product.context or self.config.strax.context for product in products}
        modules = sorted(context.partition(":")[0] for context in contexts)
        # its jobs are forks, and /proc/self/environ of a fork is that of its server
        environment = inherited.environment(self.config) | ONE_THREAD | {"PYTHONDONTWRITEBYTECODE": ""}
        environment |= self.config.strax.environment
        preload = ["straxflow.straxjob.job:preload", *modules]
        self._start(STRAX, python, "straxflow.straxjob.__main__:main", preload, environment, heirs=True)

    def _start(
        self, name: str, python: str, work: str, preload: list[str], environment: Mapping[str, str], **how: Any
    ) -> None:
        file = self.folder / "logs" / "batches" / f"{self.batch}.{name.partition('_')[2].lower()}.log"
        # a state folder that takes no file is nothing to go on without
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        try:
            server = Started(python, work, preload, environment, file, **how)
        except OSError as error:
            # slower, and what does need this Python says so itself
            log.warning("jobs start by themselves, as no server of theirs can be started: %s", error)
            return
        self._started[name] = server
        os.environ[name] = server.address

    def dismiss(self) -> None:
        """Let them end, each after its last job."""
        if STEPS in self._started:
            close_connections(self._started[STEPS].folder)
        for server in self._started.values():
            server.dismiss()

    def wait(self) -> None:
        """Wait for their end."""
        for server in self._started.values():
            server.wait()

    def close(self) -> None:
        """End them, so that none outlives a batch job, which has no more to do."""
        self.dismiss()
        self.wait()


def strax_python(config: Config) -> str | None:
    """The interpreter that runs strax, if it is one and not a command that leads to one (conda run, apptainer)."""
    first, *more = config.strax.python
    if more:
        return None
    return sys.executable if first == "python" else first
