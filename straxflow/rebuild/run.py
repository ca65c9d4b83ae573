"""A run's receipts, made anew in the order in which the steps leave them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

from straxflow.config import LIVE, Config
from straxflow.errors import RunDbError, StraxflowError
from straxflow.folders import check_folders, open_store
from straxflow.hold import held
from straxflow.plan import RECEIPTS, receipts_of
from straxflow.progress import RELEASE, chain_of
from straxflow.rebuild.data import Finder
from straxflow.rebuild.evidence import Evidence
from straxflow.rebuild.files import Receipts
from straxflow.rebuild.live import rebuild_live
from straxflow.rebuild.product import ProductRebuild
from straxflow.rebuild.report import Part, Rebuilt
from straxflow.receipts import LiveFacts, Processed, Released, RunFacts, State, Transferred
from straxflow.rundb.rundoc import Run
from straxflow.transport import LocalStore
from straxflow.transport.store import Store


@dataclass
class Rebuilder:
    """Makes receipts anew; a valid one is never touched but for its time. `any_tool`: data that another tool made
    and registered count too (they are adopted). In a dry run everything is read and judged, nothing written."""

    config: Config
    state: State
    campaign: str
    dry_run: bool = False
    any_tool: bool = False
    store: Store = field(init=False)
    evidence: Evidence = field(init=False)

    def __post_init__(self) -> None:
        self.store = open_store(self.config)
        self.evidence = Evidence(self.config, self.campaign, self.any_tool)

    def check(self) -> None:
        """Make sure that the folders and the store are the right ones.

        Raises:
            StraxflowError: naming those that are not.
        """
        check_folders(self.config, self.state)
        self.store.check_marker("store", self.config.site)

    def rebuild(self, run: Run) -> Rebuilt:
        """Make the missing receipts of a run, whose document was just read, while nobody else works on it.

        The run is held meanwhile, and keeps its state, unless all its receipts are there then: done.
        """
        if self.dry_run:
            return self.judge(run)
        try:
            with held(self.config, self.state, self.campaign, [run.id]) as invocation:
                # reading a large run takes longer than a lease
                invocation.keep()
                return self.judge(run)
        except RunDbError as error:
            return Rebuilt(run.id, problem=str(error))

    def judge(self, run: Run) -> Rebuilt:
        """The same of a run that the caller holds."""
        result = Rebuilt(run.id)
        parts = {name: self._receipts(run, name, result) for name in self._names(run)}
        facts = parts["run"]
        if facts.lacking():
            facts.make(run.facts)
        live = rebuild_live(self.config, self.evidence, run, parts[LIVE]) if LIVE in parts else None
        products = self.config.products_for(run.facts.mode)
        for product in products:
            self._product(run, product, live, parts[product])
        if RELEASE in parts:
            self._release(run, {product: parts[product] for product in products}, parts[RELEASE], result)
        self._finish(run, result)
        return result

    def _names(self, run: Run) -> list[str]:
        live = [LIVE] if "transfer" in self.config.steps else []
        release = [RELEASE] if RELEASE in self.config.steps else []
        return ["run", *live, *self.config.products_for(run.facts.mode), *release]

    def _receipts(self, run: Run, name: str, result: Rebuilt) -> Receipts:
        part = Part(name)
        result.parts.append(part)
        folder = self.state.run(run.id)
        if name == "run":
            return Receipts(folder, run.id, part, (RunFacts,), self.dry_run)
        wanted = tuple(model for _, model in chain_of(self.config, name))
        return Receipts(folder if name == RELEASE else folder / name, run.id, part, wanted, self.dry_run)

    def _product(self, run: Run, product: str, live: LiveFacts | None, receipts: Receipts) -> None:
        staging = LocalStore(self.config.folders.staging)
        finder = Finder(self.config, self.evidence, self.store, staging, run, product)
        try:
            ProductRebuild(self.config, self.evidence, finder, run, product, receipts, live).rebuild()
        except (StraxflowError, OSError) as error:
            receipts.problem(str(error))

    def _release(self, run: Run, products: dict[str, Receipts], receipts: Receipts, result: Rebuilt) -> None:
        """Only where nothing is left to be dropped: else the step does it, with its own proofs."""
        if not receipts.lacking():
            return
        if any(part.problems for part in result.parts):
            receipts.problem("waits for what is missing above")
            return
        config, live = self.config, self.config.folders.live / run.id
        dropped: dict[str, str] = {}
        kept: dict[str, str] = {}
        left: list[str] = []
        if live.is_dir() and config.release.live == "drop":
            left.append(str(live))
        elif live.is_dir():
            kept[str(live)] = "configured to be kept (release.live)"
        for product, its in products.items():
            made = its.find(Processed)
            for name in [target.folder for target in made.targets.values()] if made else []:
                folder = config.folders.staging / name
                if not folder.is_dir():
                    dropped[str(folder)] = "was dropped before"
                elif config.release.staging == "keep" or config.products[product].keep_staging:
                    kept[str(folder)] = "configured to be kept"
                else:
                    left.append(str(folder))
        if left:
            receipts.problem(f"not released yet: {', '.join(left)}; the release step does it")
            return
        receipts.make(Released(run=run.id, dropped=dropped, kept=kept, bytes=0, rebuilt="what is there"))

    def _finish(self, run: Run, result: Rebuilt) -> None:
        rebuilt = {
            f"runs/{run.id}/{name}" if part.name in ("run", RELEASE) else f"runs/{run.id}/{part.name}/{name}"
            for part in result.parts
            for name in part.rebuilt
        }
        wanted = receipts_of(self.config, run.id, run.facts.mode)
        result.missing = [r for r in wanted if not (self.state.folder / r).is_file() and r not in rebuilt]
        if rebuilt and not self.dry_run:
            self._set_times(run.id, [f"runs/{run.id}/{RunFacts.name}", *wanted], rebuilt)

    def _set_times(self, run: str, in_order: list[str], rebuilt: set[str]) -> None:
        """Make no receipt newer than those that are made from it, or than their jobs' benchmarks, which snakemake
        takes for outputs too: it would do these jobs again."""
        latest = time.time_ns()
        for receipt in reversed(in_order):
            path = self.state.folder / receipt
            if receipt in rebuilt:
                os.utime(path, ns=(latest, latest))
            elif path.is_file():
                benchmark = self.state.folder / "benchmarks" / run / _benchmark(receipt)
                files = [path, *([benchmark] if benchmark.is_file() else [])]
                latest = min(latest, *(file.stat().st_mtime_ns for file in files))


def _benchmark(receipt: str) -> str:
    """The benchmark file of the job that makes a receipt."""
    *_, product, name = receipt.split("/")
    if name == RunFacts.name:
        return "rundoc.tsv"
    if name == Released.name:
        return f"{RELEASE}.tsv"
    steps = {model.name: step for step, model in RECEIPTS.items()} | {Transferred.name: "transfer"}
    return f"{product}.{steps[name]}.tsv"
