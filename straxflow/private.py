"""Make products of a run for one person: straight into a folder of theirs, with no claim and no database write."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from straxflow.campaigns import source_state
from straxflow.claimfile import Fence
from straxflow.config import LIVE, Config
from straxflow.daqfolder import daq_top
from straxflow.errors import StepFailed, UsageError
from straxflow.folders import open_store
from straxflow.fsio import MARKER
from straxflow.receipts import Checksums, Processed, RunFacts, State, Stored, Transferred, write
from straxflow.steps.job import Job, log_to
from straxflow.steps.process import process

OWN = ".straxflow"
"""The folder in a private one that holds its receipts and logs."""


class Unclaimed(Fence):
    """Nobody else knows of a private folder, so there is nothing to take over."""

    def check(self) -> None:
        """Always holds."""


@dataclass(frozen=True)
class Private:
    """A private folder beside a site, whose receipts and data it only reads."""

    config: Config
    state: State
    campaign: str
    folder: Path
    from_scratch: bool = False

    def prepare(self) -> None:
        """Make the folder.

        Raises:
            UsageError: if it belongs to the site, or to any other.
        """
        site = self.config.folders
        own = [self.state.folder.parent, site.live, site.staging, self.config.store.folder, daq_top(self.config)]
        for place in (self.folder, *self.folder.parents):
            if place in own or (place / MARKER).exists():
                raise UsageError(f"--private {self.folder}: {place} belongs to a site; give a folder of your own")
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def own_state(self) -> State:
        """Where the receipts of what is made here stand."""
        return State(self.folder / OWN)

    def log_file(self, run: str, product: str) -> Path:
        """What was said while a product was made."""
        return self.folder / OWN / "logs" / f"{run}.{product}.log"

    def to_make(self, facts: RunFacts, product: str) -> list[str]:
        """The products to be made for one, sources first; nothing if it is here already.

        Raises:
            StepFailed: if there is nothing of the run that it could be made from.
        """
        if product not in self.config.products_for(facts.mode):
            raise UsageError(f"run {facts.run}: no {product} is made of it (mode {facts.mode})")
        chain: list[str] = []
        at = product
        while not self._made_here(facts.run, at):
            # what is asked for is made here even if the site has it
            if at != product and self._site_has(facts.run, at):
                break
            if at == LIVE:
                raise StepFailed(
                    f"run {facts.run}: neither its live data nor any product that {product} is made from are at this "
                    f"site; bring them first: straxflow process {facts.run} --target {chain[-1]}"
                )
            chain.append(at)
            at = self.config.products[at].source
        return chain[::-1]

    def make(self, facts: RunFacts, product: str) -> Processed:
        """Make one product of a run; its source is here or at the site."""
        run, source = facts.run, self.config.products[product].source
        own = self.own_state
        (own.run(run) / product).mkdir(parents=True, exist_ok=True)
        write(own.run(run) / RunFacts.name, facts)
        if not self._made_here(run, source):
            for model in (Transferred, Processed, Checksums, Stored):
                there = source_state(self.config, self.state, source).path(run, source, model)
                if there.is_file():
                    own.path(run, source, model).parent.mkdir(exist_ok=True)
                    shutil.copyfile(there, own.path(run, source, model))
        folders = self.config.folders.model_copy(update={"staging": self.folder, "scratch": None})
        strax = self.config.strax.model_copy(update={"from_scratch": self.from_scratch})
        changes = {"folders": folders, "strax": strax, "reprocessing": None}
        config = self.config.model_copy(update=changes)
        log_file = self.log_file(run, product)
        log_to(log_file)
        fence = Unclaimed(own, run, "private", 0)
        threads = self.config.products[product].workers or self.config.strax.workers
        staged = (self.config.folders.staging,)
        job = Job(config, own, self.campaign, run, product, fence, threads, log_file, other_staging=staged)
        made = process(job)
        write(own.path(run, product, Processed), made)
        return made

    def bytes_so_far(self) -> int:
        """What a product that is being made has written."""
        return sum(size for size in _sizes(self.folder / ".scratch"))

    def _made_here(self, run: str, product: str) -> bool:
        if product == LIVE:
            return False
        made = self.own_state.find(run, product, Processed)
        return made is not None and all((self.folder / t.folder).is_dir() for t in made.targets.values())

    def _site_has(self, run: str, product: str) -> bool:
        if product == LIVE:
            received = self.state.find(run, LIVE, Transferred)
            return received is not None and (self.config.folders.live / run).is_dir()
        state = source_state(self.config, self.state, product)
        made = state.find(run, product, Processed)
        if made is None:
            return False
        names = [target.folder for target in made.targets.values()]
        if all((self.config.folders.staging / name).is_dir() for name in names):
            return True
        if state.find(run, product, Stored) is None:
            return False
        store = open_store(self.config)
        store.check_marker("store", self.config.site)
        return all(store.exists(name) for name in names)


def _sizes(folder: Path) -> Iterator[int]:
    for path in folder.rglob("*") if folder.is_dir() else ():
        try:
            yield path.stat().st_size
        except OSError:
            continue  # just renamed
