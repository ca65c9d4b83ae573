"""What the Snakefile asks of the library; it knows nothing of snakemake itself."""

from __future__ import annotations

import errno
import json
import logging
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from straxflow import attempts, claimfile
from straxflow.batch import Batch, config_file
from straxflow.campaigns import source_state
from straxflow.config import LIVE, Config, Resources
from straxflow.errors import Cause, StraxflowError
from straxflow.expected import rate_of, rated_bytes
from straxflow.folders import check_folders
from straxflow.forks.shared import Servers
from straxflow.fsio import write_atomic
from straxflow.interpreter import collect_no_more
from straxflow.invocation import Invocation
from straxflow.plan import RECEIPTS, wanted_of
from straxflow.receipts import Processed, Registered, RunFacts, State, Transferred
from straxflow.rundb.rundoc import query_for
from straxflow.takeover import Claims

ENDED_BY: dict[str, Cause] = {"mem_mb": "out of memory", "runtime_min": "time-out"}
"""What ends a job that has too little of a resource."""


class Flow:
    """One parsing of the Snakefile: its configuration, its state folder, its invocation."""

    def __init__(
        self, config: Config, state: State, campaign: str, batch: str, servers: Servers, log: logging.Logger
    ) -> None:
        self.config = config
        self.state = state
        self.log = log
        self.invocation = Invocation(config, state, campaign, batch)
        self._facts: dict[str, RunFacts] = {}
        self._left_out: dict[str, Collection[str]] = {}
        self._ended: dict[str, Counter[tuple[str, str, Cause | None]]] = {}
        self._begun = False
        self.holds_claims = False
        """Whether the runs of all jobs are claimed: from `begin` on, and in batch jobs."""
        self._claims = Claims(state, batch)
        self._servers = servers
        self._finished = False
        self._bytes: dict[str, int] = {}
        self._ranks: dict[str, int] = {}

    def begin(self, targets: Sequence[str], settings: Mapping[str, Any], processes_here: bool) -> None:
        """Check the folders, claim what explicit targets need, and keep the leases from now on.

        `settings` is the configuration as the jobs are to read it; `processes_here` tells that process jobs run
        on this machine, as children of this process.
        """
        check_folders(self.config, self.state)
        self.invocation.check_batch_is_new()
        file = self.state.folder / config_file(self.invocation.batch)
        file.parent.mkdir(exist_ok=True)
        # strax.environment may hold what is not for everybody's eyes
        write_atomic(file, json.dumps(settings, default=str).encode(), mode=0o600)
        self._servers.start_steps()
        self._processes_here = processes_here
        self.invocation.note_interrupts()
        self._begun = True
        self.invocation.open_tunnel()
        runs = self.invocation.claim_targets(targets)
        if runs:
            self.log.info(f"straxflow: claimed run{'s' * (len(runs) > 1)} {', '.join(runs)}")
        for reason in self.invocation.held_up if runs else ():
            self.log.warning(f"straxflow: {reason}; runs that were named are worked on all the same")
        self.holds_claims = True
        self.invocation.keep()
        self.log.addHandler(self.invocation.tell())

    def finish(self) -> None:
        """Give the runs back, once."""
        if self._finished or not self._begun:
            return
        self._finished = True
        self._servers.dismiss()
        states = self.invocation.finish()
        self._servers.wait()
        for run, state in sorted(states.items()):
            self.log.info(f"straxflow: run {run}: {state}")
        collect_no_more()

    def preview(self) -> list[str]:
        """Receipts that an invocation would make now; reads only."""
        check_folders(self.config, self.state)
        chosen = self.invocation.preview(lambda text: self.log.warning(f"straxflow: {text}"))
        self._facts |= {one.run.id: one.run.facts for one in chosen}
        self._left_out |= {one.run.id: self.invocation.left_out(one.run) for one in chosen}
        self.log.info(f"straxflow: {len(chosen)} pending run{'s' * (len(chosen) != 1)} would be claimed")
        return [path for one in chosen for path in self._wanted_of(one.run.id, one.run.facts.mode, one.products)]

    def receipts_of_batch(self, batch_file: str) -> list[str]:
        """All receipts of the runs of a batch."""
        batch = Batch.model_validate_json(Path(batch_file).read_text(encoding="utf-8"))
        self._ranks = {run.run: len(batch.runs) - place for place, run in enumerate(batch.runs)}
        self._left_out |= {run.run: run.left_out for run in batch.runs}
        if batch.runs and self._begun and self._processes_here:
            # it does its imports while the first data come in
            self._servers.start_strax()
        return [path for run in batch.runs for path in self._wanted_of(run.run, run.mode, run.products)]

    def _wanted_of(self, run: str, mode: str, products: Sequence[str] | None) -> list[str]:
        return wanted_of(self.config, self.state, run, mode, products, self._left_out_of(run))

    def _left_out_of(self, run: str) -> Collection[str]:
        """Products that are not made of a run in this invocation; a job of its own reads them from the run's claim."""
        if run not in self._left_out:
            claim = claimfile.read(self.state, run)
            ours = claim is not None and claim.batch == self.invocation.batch
            self._left_out[run] = claim.left_out if claim and ours else ()
        return self._left_out[run]

    def check_run_id(self, run: str) -> None:
        """Make sure that a target names a run by its id, as a dry run asks nobody else.

        Raises:
            RunDbError: with the id that was probably meant.
        """
        query_for(run, self.config)

    def source_receipt(self, run: str, product: str) -> str:
        """The receipt of what a product is made from."""
        source = self.config.products[product].source
        model = Transferred if source == LIVE else Processed
        if self.config.taken_from(source):
            return str(source_state(self.config, self.state, source).path(run, source, model))
        return f"runs/{run}/{source}/{model.name}"

    def before_release(self, run: str) -> list[str]:
        """All receipts that must stand before a run's copies may be dropped."""
        left_out = self._left_out_of(run)
        made = self.config.products_for(self._facts_of(run).mode)
        products = [product for product in made if product not in left_out]
        live = [LIVE] if "transfer" in self.config.steps else []
        return [f"runs/{run}/{p}/{Registered.name}" for p in live + products]

    def _facts_of(self, run: str) -> RunFacts:
        if run not in self._facts:
            known = (self.state.run(run) / RunFacts.name).is_file()
            self._facts[run] = self.state.facts(run) if known else self.invocation.facts(run)
        return self._facts[run]

    def priority(self, run: str) -> int:
        """The priority of a run's jobs: runs that were claimed first are worked on first, and to their end."""
        return self._ranks.get(run, 0)

    def threads(self, step: str, run: str, product: str = LIVE) -> int:
        """Threads of a job; those of a process job as many as strax has workers, unless more are asked for.

        Raises:
            ClaimLost: if another invocation has taken the run over. Snakemake asks just before it starts a job, which
                would remove the receipt that is there.
        """
        if self.holds_claims:
            self._claims.check(run)
        if not hasattr(self.config.resources, step):
            return 1
        workers = self.config.products[product].workers or self.config.strax.workers if step == "process" else 1
        return max(workers, self._resources(step, product, run).threads)

    def partition(
        self, step: str, run: str, product: str | None, attempt: int, inputs: Sequence[str], groups: Mapping[str, str]
    ) -> str | None:
        """The Slurm partition for an attempt of a step. Steps that share one batch job (`groups`, the name of that of
        each step) have one too: the longest, where several runs share it.

        Raises:
            FileNotFoundError: as `resource`.
        """
        if step not in groups:
            minutes: float = self.resource(step, "runtime_min", run, product, attempt, inputs)
        elif "{run}" not in groups[step]:
            minutes = math.inf
        else:
            products = self.config.products_for(self._facts_of(run).mode)
            jobs = [(s, p) for s in groups for p in (products if s in RECEIPTS else [None])]
            minutes = sum(self.resource(s, "runtime_min", run, p, attempt, inputs) for s, p in jobs)
        return self.config.resources.partition_for(minutes)

    def resource(self, step: str, name: str, run: str, product: str | None, attempt: int, inputs: Sequence[str]) -> int:
        """MB of memory or minutes of run time for an attempt (1, 2, ...) of a step.

        Raises:
            FileNotFoundError: naming an input that is not made yet, while the size of the run is unknown;
                snakemake asks again later.
        """
        wanted = self._resources(step, product, run)
        base: int = getattr(wanted, name)
        per_gb: float = getattr(wanted, f"{name}_per_gb")
        try:
            gigabytes = self._live_bytes(run, inputs) / 1e9 if per_gb else 0
        except StraxflowError:
            gigabytes = 0  # an unreadable receipt fails the step that reads it, not the planning of all others
        amount = int((base + per_gb * gigabytes) * (attempt + self._too_small(step, name, run, product)))
        most: int | None = getattr(self.config.resources, f"max_{name}")
        return amount if most is None else min(amount, most)

    def _too_small(self, step: str, name: str, run: str, product: str | None) -> int:
        """How often a step was ended for want of this resource by earlier invocations."""
        if run not in self._ended:
            earlier = [f.attempt for f in attempts.all_of(self.state, run) if f.attempt.batch != self.invocation.batch]
            self._ended[run] = Counter((a.step, a.product, a.cause) for a in earlier)
        return self._ended[run][step, product or LIVE, ENDED_BY[name]]

    def _resources(self, step: str, product: str | None, run: str) -> Resources:
        own = self.config.products[product].resources if product and step == "process" else None
        chosen: Resources = own or getattr(self.config.resources, step)
        return chosen.at_rate(self._rate(run)) if chosen.by_rate else chosen

    def _rate(self, run: str) -> float | None:
        try:
            return rate_of(self._facts_of(run))
        except StraxflowError:
            return None  # what cannot be read fails the step that needs it, not the planning of all others

    def _live_bytes(self, run: str, inputs: Sequence[str]) -> int:
        if run not in self._bytes:
            received = self.state.find(run, LIVE, Transferred)
            missing = [i for i in inputs if not (self.state.folder / i).exists()]
            if received:
                self._bytes[run] = received.bytes
            elif missing:
                raise FileNotFoundError(errno.ENOENT, "not made yet", missing[0])
            else:
                # before the transfer the DAQ's rate tells, as far as it is known
                return rated_bytes(self._facts_of(run))
        return self._bytes[run]
