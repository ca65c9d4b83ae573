"""The one model of the configuration: schema, defaults, documentation and errors all come from here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from straxflow.config.sections.base import LIVE, STEPS, Name, Section, Step
from straxflow.config.sections.campaigns import Corrections, Reprocessing
from straxflow.config.sections.dashboard import Dashboard
from straxflow.config.sections.discovery import Discovery
from straxflow.config.sections.failures import Failures, Hooks
from straxflow.config.sections.health import Health
from straxflow.config.sections.permissions import Permissions
from straxflow.config.sections.places import Daq, Disks, Folders, RunDb, Store
from straxflow.config.sections.products import Product
from straxflow.config.sections.resources import StepResources
from straxflow.config.sections.selection import Claim, Runs
from straxflow.config.sections.shadow import Shadow
from straxflow.config.sections.states import History, States, Sync
from straxflow.config.sections.steps import Release, Strax, Transfer
from straxflow.config.sections.watch import Watch


class Config(Section):
    """The configuration of a site."""

    site: Name = Field(description="Name of this site, in markers, receipts and data entries.")
    experiment: str = Field("", description="Name of the experiment, for the run id template.")
    experiments: Literal["ALL"] | list[str] = Field(
        [],
        description="Several experiments instead: names, or patterns with * and ?; `ALL` is all. Their run documents "
        "tell by `experiment` to which they belong; the run id template must hold {experiment}.",
    )
    run_id: str = Field(
        "{number:06d}",
        description="Template of the run id; {number}, {name}, {experiment} and {mode}; no dashes.",
    )
    steps: list[Step] = Field([*STEPS], min_length=1, description="Steps that this site does.")
    head_node: list[Step] = Field(
        [],
        description="Steps that run where snakemake runs, not in the batch system (best set by the profile).",
    )
    folders: Folders
    disks: Disks = Disks()
    store: Store
    rundb: RunDb = RunDb()
    daq: Daq
    discovery: Discovery = Discovery()
    runs: Runs
    products: dict[Name, Product] = Field(min_length=1, description="The products, by name.")
    transfer: Transfer = Transfer()
    strax: Strax = Strax()
    container: str = Field(
        "straxflow.sif",
        description="Image with straxflow in it, used only if snakemake is started with "
        "`--software-deployment-method apptainer`.",
    )
    checksum: Literal["xxh128", "sha256"] = Field("xxh128", description="Algorithm of the manifests.")
    claim: Claim = Claim()
    failures: Failures = Failures()
    hooks: Hooks = Hooks()
    release: Release = Release()
    shadow: Shadow = Shadow()
    permissions: Permissions = Permissions()
    states: States = States()
    history: History = History()
    sync: Sync = Sync()
    dashboard: Dashboard = Dashboard()
    health: Health = Health()
    corrections: Corrections = Corrections()
    reprocessing: Reprocessing | None = Field(
        None, description="In a campaign of `straxflow reprocess`: what it makes, and from what. Not for config files."
    )
    resources: StepResources = StepResources()
    watch: Watch = Watch()

    @field_validator("run_id")
    @classmethod
    def _template(cls, template: str) -> str:
        try:
            example = template.format(number=932, name="name", experiment="exp", mode="mode")
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"is no template of {{number}}, {{name}}, {{experiment}}, {{mode}}: {error}") from error
        if not re.fullmatch(r"[A-Za-z0-9_]+", example):
            raise ValueError(f"gives {example!r}: a run id has letters, digits and _ only (strax splits at dashes)")
        if "{number" not in template and "{name" not in template:
            raise ValueError("must contain {number} or {name}, or all runs would share an id")
        return template

    @model_validator(mode="after")
    def _experiments_fit(self) -> Self:
        errors = []
        if self.experiments and "{experiment" not in self.run_id:
            errors.append("run_id: must contain {experiment}, or runs of several experiments would share an id")
        if self.experiments and self.rundb.kind == "folders" and "{experiment}" not in str(self.daq.folder):
            errors.append("daq.folder: must contain {experiment}: each experiment has a folder of its own")
        for path in (str(self.daq.folder), self.daq.run_folder):
            try:
                path.format(run="run", number=932, experiment="exp")
            except (KeyError, IndexError, ValueError) as error:
                errors.append(f"daq: {path!r} is no template of a run's folder: {error}")
        if errors:
            raise ValueError("\n".join(errors))
        return self

    @field_validator("steps", "head_node")
    @classmethod
    def _once(cls, steps: list[str]) -> list[str]:
        twice = sorted({s for s in steps if steps.count(s) > 1})
        if twice:
            raise ValueError(f"named twice: {', '.join(twice)}")
        return steps

    @model_validator(mode="after")
    def _products_fit(self) -> Self:
        errors = []
        owners: dict[str, str] = {}
        for name, product in self.products.items():
            if name == LIVE:
                errors.append("products.live: `live` is the DAQ's data, not a product; choose another name")
            if product.source not in self.products and product.source != LIVE:
                known = ", ".join([LIVE, *self.products])
                errors.append(f"products.{name}.from: unknown product {product.source!r} (known: {known})")
            for target in self.targets(name):
                if target in owners:
                    errors.append(f"products.{name}.targets: {target!r} is made by {owners[target]!r} already")
                owners[target] = name
            if self._in_cycle(name):
                errors.append(f"products.{name}.from: a cycle: {name} is made from itself")
        if self.shadow.enabled and self.release.live == "drop":
            errors.append("release.live: a shadow drops no live data; set it to keep")
        for times, kept in self.failures.fewer_products.items():
            errors += [f"failures.fewer_products.{times}: {problem}" for problem in self._not_whole(kept)]
        for name, field in self.states.fields.items():
            if field.source not in ("run", LIVE, *self.products):
                known = ", ".join(["run", LIVE, *self.products])
                errors.append(f"states.fields.{name}.from: unknown product {field.source!r} (known: {known})")
        if self.reprocessing and (odd := [n for n in self.reprocessing.products if n not in self.products]):
            errors.append(f"reprocessing.products: unknown product {odd[0]!r} (known: {', '.join(self.products)})")
        gap = self._first_gap()
        if gap:
            errors.append(f"steps: {gap}")
        if errors:
            raise ValueError("\n".join(errors))
        return self

    def _in_cycle(self, name: str) -> bool:
        seen = set()
        while name in self.products and name not in seen:
            seen.add(name)
            name = self.products[name].source
        return name in seen

    def _first_gap(self) -> str | None:
        places = [place for place, step in enumerate(STEPS) if step in self.steps]
        for before, after in pairwise(places):
            if after != before + 1:
                return f"{STEPS[after]!r} needs {STEPS[after - 1]!r}, which is left out"
        return None

    def _not_whole(self, products: list[str]) -> Iterator[str]:
        for name in products:
            if name not in self.products:
                yield f"unknown product {name!r} (known: {', '.join(self.products)})"
            elif (source := self.products[name].source) not in (LIVE, *products):
                yield f"{name} is made from {source}, which the list leaves out"

    def targets(self, product: str) -> list[str]:
        """The data types of a product: its `targets`, or its own name."""
        return list(self.products[product].targets) or [product]

    def products_for(self, mode: str) -> list[str]:
        """Products of a run of this mode, sources first; a product goes with its source."""
        made = {name for name, product in self.products.items() if product.modes.match(mode)}

        def whole(name: str) -> bool:
            return name == LIVE or (name in made and whole(self.products[name].source))

        def depth(name: str) -> int:
            return 0 if name == LIVE else 1 + depth(self.products[name].source)

        return sorted((n for n in self.products if whole(n) and self.makes(n)), key=depth)

    def makes(self, product: str) -> bool:
        """Whether a product is made in this campaign."""
        return self.reprocessing is None or product in self.reprocessing.products

    def taken_from(self, product: str) -> str | None:
        """The campaign whose stored copy of a product is used, for one that is not made in this campaign."""
        if self.reprocessing is None or product == LIVE or self.makes(product):
            return None
        return self.reprocessing.source

    @property
    def needs_live(self) -> bool:
        """Whether anything is made from live data."""
        return any(self.makes(name) and product.source == LIVE for name, product in self.products.items())

    def consumers(self, source: str, mode: str) -> list[str]:
        """Products of a run of this mode that are made from `source`."""
        return [name for name in self.products_for(mode) if self.products[name].source == source]

    def selects_experiment(self, name: str) -> bool:
        """Whether runs of this experiment are worked on."""
        if self.experiments == "ALL" or not self.experiments:
            return True
        return any(fnmatchcase(name, pattern) for pattern in self.experiments)

    def selects_mode(self, mode: str) -> bool:
        """Whether runs of this mode are worked on."""
        return any(fnmatchcase(mode, pattern) for pattern in self.runs.modes)

    @property
    def store_hosts(self) -> list[str]:
        """The `host` names of data entries for the store."""
        return self.store.hosts or [self.site]
