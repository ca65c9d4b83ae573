"""Receipts: the small JSON files that steps leave, which are the workflow's targets. One model each, one reader,
one writer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from straxflow.digests import Manifest
from straxflow.errors import Damaged, StepFailed
from straxflow.fsio import write_atomic

SCHEMA = 1
# what becomes a part of a path: no edited receipt leads out of its folder
RunId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")]
PlainName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$")]


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


class _Model(BaseModel):
    # built when first used: a job needs few of these models, and building takes longer than reading
    model_config = ConfigDict(extra="forbid", defer_build=True)


def build_models(base: type[BaseModel] = _Model) -> None:
    """Build them all, for a process whose forks are to find them built."""
    for model in base.__subclasses__():
        model.model_rebuild()
        build_models(model)


class Receipt(_Model):
    """What every receipt says."""

    name: ClassVar[str]

    schema_version: int = SCHEMA
    run: RunId
    made: AwareDatetime = Field(default_factory=now)
    rebuilt: str | None = None
    """Of a receipt made anew: what it was verified against."""


class Partial(_Model):
    """A person closed a run whose DAQ crashed: so many chunks of it are good, the others are left out."""

    chunks: int
    by: str
    reason: str


class RunFacts(Receipt):
    """run.json: acquisition facts of the run document; never its data, status or tags."""

    name: ClassVar[str] = "run.json"

    number: int
    start: AwareDatetime
    end: AwareDatetime
    mode: str
    detectors: list[str] = []
    source: str | None = None
    daq_config: dict[str, Any] = {}
    rate: dict[str, Any] = {}
    experiment: str | None = None
    partial: Partial | None = None

    @property
    def seconds(self) -> float:
        """Length of the run, s."""
        return (self.end - self.start).total_seconds()


class LiveFacts(_Model):
    """What the live-data check found."""

    chunks: int
    records: int
    bytes_uncompressed: int
    seconds: float
    oddities: list[str] = []


class Transferred(Receipt):
    """live/transferred.json: the files that arrived, each with size and digest."""

    name: ClassVar[str] = "transferred.json"

    folder: str
    source: str
    host: str
    algorithm: str
    files: list[tuple[str, int, str]]
    bytes: int
    seconds: float
    check: LiveFacts | None = None
    made_here: list[str] | None = None
    """Of a partial run: the files that end it, which the DAQ does not have; its own later ones were left out."""

    @property
    def manifest(self) -> Manifest:
        """The files as a manifest."""
        return Manifest.from_rows(self.algorithm, self.files)


class Target(_Model):
    """One strax data type (or a command's result) that a product holds."""

    folder: PlainName
    lineage_hash: str
    chunks: int
    records: int
    bytes: int
    files: int
    # in strax' own order of keys: amstrax and straxen find data by the whole sub-document, order included
    lineage: dict[str, Any] = {}
    start_ns: int | None = None
    end_ns: int | None = None
    digest: str | None = None
    """Of all its files as they were published, see `Manifest.digest`: the manifest must be of the same."""


class Processed(Receipt):
    """processed.json: what a process step made, and how."""

    name: ClassVar[str] = "processed.json"

    product: str
    source: str
    source_campaign: str | None = None
    corrections: str | None = None
    targets: dict[str, Target]
    settings: str
    records_in: int | None = None
    records_out: int | None = None
    dead_time_records: int = 0
    dead_time_ns: int = 0
    versions: dict[str, str] = {}
    host: str
    seconds: float
    cpu_seconds: float
    peak_rss_mb: float
    adopted: str | None = None

    @property
    def bytes(self) -> int:
        """Size of all targets."""
        return sum(t.bytes for t in self.targets.values())


class Checksums(Receipt):
    """checksums.json: digest of every file of a product, paths relative to the staging (or store) folder."""

    name: ClassVar[str] = "checksums.json"

    product: str
    algorithm: str
    files: list[tuple[str, int, str]]
    list_file: str
    seconds: float

    @property
    def manifest(self) -> Manifest:
        """All files as a manifest."""
        return Manifest.from_rows(self.algorithm, self.files)

    def manifest_of(self, folder: str) -> Manifest:
        """The files of one data folder, paths relative to it."""
        return self.manifest.below(folder)


class Stored(Receipt):
    """stored.json: where a product was moved to, and that it was read back there."""

    name: ClassVar[str] = "stored.json"

    product: str
    site: str
    location: str
    folders: list[PlainName]
    bytes: int
    seconds: float
    adopted: list[str] = []
    """Folders that stood in the store already; made at another time, which their metadata tell."""
    algorithm: str | None = None
    files: list[tuple[str, int, str]] = []
    """Of a product with adopted folders: digest of every file as it stands in the store."""

    def manifest(self, sums: Checksums) -> Manifest:
        """All files as they stand in the store; `sums` is of the copy in staging."""
        return Manifest.from_rows(self.algorithm, self.files) if self.algorithm and self.files else sums.manifest

    def tells_other_times(self, folder: str) -> bool:
        """Whether the metadata of an adopted folder differ from those in `manifest`, as receipts of before had it."""
        return folder in self.adopted and not self.files


class Registered(Receipt):
    """registered.json: the `data` entries that stand in the run document."""

    name: ClassVar[str] = "registered.json"

    product: str
    entries: list[dict[str, Any]]


class Released(Receipt):
    """released.json: which copies were dropped, which were kept, and why."""

    name: ClassVar[str] = "released.json"

    dropped: dict[str, str]
    kept: dict[str, str]
    bytes: int


R = TypeVar("R", bound=Receipt)


def read(path: Path, model: type[R], run: str | None = None) -> R:
    """Read a receipt.

    Raises:
        FileNotFoundError: if there is none.
        Damaged: if it is truncated, of another run, or of a later schema version.
    """
    text = path.read_text(encoding="utf-8")
    remedy = "remove it and name it as a target to make it again"
    try:
        receipt = model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        version = re.search(r'"schema_version":\s*(\d+)', text)
        if version and int(version[1]) > SCHEMA:
            raise Damaged(
                f"{path}: has schema version {version[1]}, this straxflow knows up to {SCHEMA}: upgrade it"
            ) from None
        where = ".".join(map(str, first["loc"])) or "the whole file"
        raise Damaged(f"{path}: not a valid receipt: {where}: {first['msg']}; {remedy}") from None
    if receipt.schema_version > SCHEMA:
        raise Damaged(
            f"{path}: has schema version {receipt.schema_version}, this straxflow knows up to {SCHEMA}: upgrade it"
        )
    if run is not None and receipt.run != run:
        raise Damaged(f"{path}: is the receipt of run {receipt.run}, expected run {run}; {remedy}")
    return receipt


def write(path: Path, receipt: Receipt, new: bool = False) -> None:
    """Write a receipt atomically: temp file in the same folder, fsync, rename.

    Raises:
        FileExistsError: if there is one already, and a `new` one was to be written.
    """
    write_atomic(path, receipt.model_dump_json(indent=1).encode() + b"\n", new=new)


@dataclass(frozen=True)
class State:
    """The state folder of one campaign: the place of every receipt."""

    folder: Path

    @property
    def runs(self) -> Path:
        """Folder of all runs."""
        return self.folder / "runs"

    def run(self, run: str) -> Path:
        """Folder of a run."""
        return self.runs / run

    def facts(self, run: str) -> RunFacts:
        """The run's run.json."""
        return read(self.run(run) / RunFacts.name, RunFacts, run)

    def path(self, run: str, product: str, model: type[Receipt]) -> Path:
        """Where a product's receipt stands (`live` is a product here)."""
        return self.run(run) / product / model.name

    def get(self, run: str, product: str, model: type[R]) -> R:
        """Read a product's receipt, which must be there.

        Raises:
            StepFailed: if it is not.
        """
        path = self.path(run, product, model)
        try:
            return read(path, model, run)
        except FileNotFoundError:
            raise StepFailed(
                f"{path}: this receipt is missing; make it again: snakemake ... {path.relative_to(self.folder)}"
            ) from None

    def find(self, run: str, product: str, model: type[R]) -> R | None:
        """Read a product's receipt, if there is one."""
        try:
            return read(self.path(run, product, model), model, run)
        except FileNotFoundError:
            return None

    def released(self, run: str) -> Path:
        """Where the run's released.json stands."""
        return self.run(run) / Released.name

    def all_runs(self) -> Iterator[str]:
        """Ids of all runs that have a folder here."""
        if self.runs.is_dir():
            yield from sorted(p.name for p in self.runs.iterdir() if p.is_dir())
