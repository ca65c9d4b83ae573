"""The one model of the configuration: schema, defaults, documentation and errors all come from here."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Step = Literal["transfer", "process", "checksum", "move_out", "register", "release"]
STEPS: tuple[Step, ...] = ("transfer", "process", "checksum", "move_out", "register", "release")
LIVE = "live"

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """A part of the configuration; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class Folders(Section):
    """Folders of this site; relative ones count from the folder of the Snakefile. `straxflow init` makes them."""

    state: Path = Field(description="Receipts, claims, attempts and logs; on a disk that all jobs share.")
    live: Path = Field(description="Where the DAQ's live data arrives, one folder a run.")
    staging: Path = Field(description="Where products stay between process and move_out.")
    scratch: Path | None = Field(
        None, description="Private scratch of attempts; by default in a hidden folder of `staging`."
    )

    @property
    def scratch_folder(self) -> Path:
        """The scratch folder in effect."""
        return self.scratch or self.staging / ".scratch"


class Store(Section):
    """The final place of the products."""

    folder: Path = Field(description="Folder that holds <run>-<data type>-<hash> folders, as strax reads them.")
    hosts: list[str] = Field(
        [],
        description="Names in the `host` field of data entries, an entry for each; by default the site. amstrax looks "
        "for the fully qualified name of the machine it reads on.",
    )
    ssh: str | None = Field(None, description="[user@]host of a remote store; absent: the folder is mounted here.")
    ssh_options: list[str] = Field([], description="Options for ssh, e.g. ['-p', '2222', '-i', 'key'].")
    min_free_gb: float = Field(10, ge=0, description="Below this the check command says so.")


class Tunnel(Section):
    """An ssh tunnel to the run database, opened, watched and reopened by straxflow."""

    ssh: str = Field(description="[user@]host that can reach the database.")
    ssh_options: list[str] = Field([], description="Options for ssh.")
    remote_host: str = Field("localhost", description="The database's host as seen from there.")
    remote_port: int = Field(27017, description="The database's port there.")


class RunDb(Section):
    """The run database (MongoDB)."""

    uri: str = Field(
        "mongodb://localhost:27017/",
        description="Without a password; with a tunnel, its host and port are replaced.",
    )
    database: str = Field("run", description="Database name.")
    collection: str = Field("runs", description="Collection of the run documents.")
    user: str | None = Field(None, description="User name, if the database asks for one.")
    auth_source: str | None = Field(None, description="Database that holds the user.")
    password_env: str = Field("STRAXFLOW_RUNDB_PASSWORD", description="Environment variable that holds the password.")
    password_file: Path | None = Field(None, description="File that holds the password; its mode must be 600.")
    timeout_s: Seconds = Field(5, description="How long to wait for the database, in seconds.")
    tunnel: Tunnel | None = Field(None, description="Reach the database through this ssh tunnel.")

    @field_validator("uri")
    @classmethod
    def _no_password(cls, uri: str) -> str:
        if not re.match(r"mongodb(\+srv)?://", uri):
            raise ValueError("must start with mongodb://")
        if re.match(r"mongodb(\+srv)?://[^/@]*:[^/@]*@", uri):
            raise ValueError("holds a password; give `user`, and the password by the environment or `password_file`")
        return uri


class Daq(Section):
    """The DAQ's disk."""

    host: str = Field(description="The `host` of the DAQ's live data entries in the run documents.")
    folder: Path = Field(description="Folder there that holds one folder a run.")
    ssh: str | None = Field(None, description="[user@]host; absent: the folder is mounted here.")
    ssh_options: list[str] = Field([], description="Options for ssh, e.g. ['-p', '2222', '-i', 'key'].")


class Transfer(Section):
    """How live data is brought in."""

    rsync_args: list[str] = Field([], description="More arguments for rsync, e.g. ['--bwlimit=80M'].")
    max_parallel: Count = Field(2, description="Transfers at once in the whole site, over all invocations.")
    timeout_s: Seconds = Field(60, description="A connection that is silent for so long is closed.")
    retries: int = Field(3, ge=0, description="Lost connections resumed within one attempt.")
    slot_wait_s: float = Field(
        1200, ge=0, description="How long a transfer waits for others to end before it gives way and is tried again."
    )
    wait_s: float = Field(60, ge=0, description="How long to wait for a run that is still being written.")
    length_tolerance_s: float = Field(
        2, ge=0, description="How far the run's start and end in its document may be from its data; s."
    )
    check: bool = Field(True, description="Check the format of the live data after its arrival (redax).")


class Runs(Section):
    """Which runs this site works on."""

    min_run_number: int = Field(ge=0, description="Runs below it are never touched. Mandatory.")
    max_run_number: int | None = Field(None, description="Runs above it are never touched.")
    numbers: list[int] | None = Field(None, description="Only these runs.")
    modes: list[str] = Field(["*"], description="Only these modes (patterns with * and ?).")
    detectors: list[str] = Field([], description="Only runs with one of these detectors; empty: all.")
    skip_tags: list[str] = Field(
        ["abandon", "hold-processing", "donotprocess"],
        description="Runs with one of these tags are left alone.",
    )
    settle_s: float = Field(10, ge=0, description="A run is pending so many seconds after its end.")


class Claim(Section):
    """How runs are claimed."""

    max_runs: int = Field(200, ge=1, le=500, description="Runs that one invocation claims at most.")
    lease_s: float = Field(600, ge=3, description="A claim that is not renewed for so long may be taken over.")
    max_failures: int = Field(10, ge=1, description="A run that failed so often is left to a person.")
    backoff_s: float = Field(
        60, ge=0, description="A failed run is due again after this x U(0.5, 1.5) x 5^min(failures - 1, 3) s."
    )


class Resources(Section):
    """What a job asks of the batch system; all grow with the attempt, `mem_mb` and `runtime_min` with the run."""

    mem_mb: Count = Field(1000, description="Memory, MB.")
    mem_mb_per_gb: float = Field(0, ge=0, description="More memory per GB of input, MB.")
    runtime_min: Count = Field(30, description="Run time, minutes.")
    runtime_min_per_gb: float = Field(0, ge=0, description="More run time per GB of input, minutes.")
    threads: Count = Field(1, description="Threads.")


class StepResources(Section):
    """Resources by step (a product may have its own for `process`)."""

    transfer: Resources = Resources(runtime_min=60, runtime_min_per_gb=5)
    process: Resources = Resources(mem_mb=3000, mem_mb_per_gb=500, runtime_min=30, runtime_min_per_gb=15)
    checksum: Resources = Resources(runtime_min_per_gb=1)
    move_out: Resources = Resources(runtime_min_per_gb=5)


class Strax(Section):
    """How strax is run."""

    python: list[str] = Field(
        ["python"],
        min_length=1,
        description="Command that is Python with strax: a path, or e.g. ['conda', 'run', '-n', 'strax', 'python'] "
        "or ['apptainer', 'exec', 'strax.sif', 'python']. ['python'] alone is straxflow's own.",
    )
    environment: dict[str, str] = Field({}, description="Environment variables for it.")
    context: str = Field(
        "straxflow.detectors.demo:context",
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="module:function that makes the context.",
    )
    context_kwargs: dict[str, object] = Field({}, description="Keyword arguments for that function.")
    config: dict[str, object] = Field({}, description="strax options that override the context's.")
    workers: Count = Field(1, description="max_workers of strax.")
    timeout_s: Seconds = Field(72 * 3600, description="A process that runs longer is stopped.")
    from_scratch: bool = Field(False, description="Make data anew even if it is already stored.")
    max_gap_s: float = Field(
        2, ge=0, description="How much of a run's start or end a product may leave uncovered, in seconds."
    )


class Modes(Section):
    """Run modes (patterns with * and ?) for which a product is made."""

    include: list[str] = Field(["*"], description="Made for these modes.")
    exclude: list[str] = Field([], description="But not for these.")

    def match(self, mode: str) -> bool:
        """Whether a product is made for this mode."""
        return any(fnmatchcase(mode, p) for p in self.include) and not any(fnmatchcase(mode, p) for p in self.exclude)


class Product(Section):
    """What one job makes: strax data types, or the result of a command."""

    source: str = Field(alias="from", description="`live`, or the product it is made from.")
    kind: Literal["strax", "command"] = Field("strax", description="Made by strax, or by any command.")
    targets: list[Name] = Field([], description="strax data types; by default the product's name.")
    modes: Modes = Field(Modes(), description="Run modes it is made for.")
    command: str | None = Field(
        None,
        description="kind command: the command line; {run}, {number}, {mode}, {source}, {output} and {product} are "
        "filled in, no shell is involved. It must leave its files in {output}.",
    )
    context: str | None = Field(
        None, pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", description="Instead of strax.context."
    )
    context_kwargs: dict[str, object] = Field({}, description="Added to strax.context_kwargs.")
    config: dict[str, object] = Field({}, description="Added to strax.config.")
    workers: Count | None = Field(None, description="Instead of strax.workers.")
    timeout_s: Seconds | None = Field(None, description="Instead of strax.timeout_s.")
    resources: Resources | None = Field(None, description="Instead of resources.process.")
    counted: str = Field(
        "raw_records*",
        description="Data types (a pattern) of a product made from live data whose records must be as many as came in.",
    )
    keep_staging: bool = Field(False, description="Never drop the staging copy.")

    @model_validator(mode="after")
    def _command_fits_kind(self) -> Self:
        if self.kind == "command" and not self.command:
            raise ValueError("kind command needs a `command`")
        if self.kind == "strax" and self.command:
            raise ValueError("`command` is for kind command")
        if self.kind == "command" and self.targets:
            raise ValueError("`targets` is for kind strax")
        return self


class Release(Section):
    """What is dropped when a run is stored."""

    staging: Literal["drop", "keep"] = Field("drop", description="The staging copies of products.")
    live: Literal["drop", "keep"] = Field(
        "keep",
        description="The live copy here; dropped only after two other copies were re-read and matched.",
    )


class Config(Section):
    """The configuration of a site."""

    site: Name = Field(description="Name of this site, in markers, receipts and data entries.")
    experiment: str = Field("", description="Name of the experiment, for the run id template.")
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
    store: Store
    rundb: RunDb = RunDb()
    daq: Daq
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
    release: Release = Release()
    resources: StepResources = StepResources()

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

        return sorted((n for n in self.products if whole(n)), key=depth)

    def consumers(self, source: str, mode: str) -> list[str]:
        """Products of a run of this mode that are made from `source`."""
        return [name for name in self.products_for(mode) if self.products[name].source == source]

    def selects_mode(self, mode: str) -> bool:
        """Whether runs of this mode are worked on."""
        return any(fnmatchcase(mode, pattern) for pattern in self.runs.modes)

    @property
    def store_hosts(self) -> list[str]:
        """The `host` names of data entries for the store."""
        return self.store.hosts or [self.site]
