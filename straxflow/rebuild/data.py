"""The data of a product in the store or in staging: found by evidence, and looked at whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from straxflow.config import Config
from straxflow.digests import FileDigest, Manifest
from straxflow.errors import Damaged, StepFailed
from straxflow.rebuild.evidence import Evidence, contradictions, folder_of
from straxflow.receipts import Target
from straxflow.rundb.client import Document
from straxflow.rundb.rundoc import Run
from straxflow.steps.straxstep import coverage
from straxflow.straxjob.validate import check_strax_files, metadata_name, parse_metadata
from straxflow.transport.store import Store


@dataclass(frozen=True)
class Found:
    """The data of one data type: where they are, what they are, and their entries in the run document."""

    target: Target
    manifest: Manifest
    place: Store
    stored: bool
    entries: list[Document]

    def by(self, algorithm: str) -> Manifest:
        """The manifest by an algorithm."""
        same = self.manifest.algorithm == algorithm
        return self.manifest if same else self.place.manifest(self.target.folder, algorithm)

    def digests(self, algorithm: str) -> tuple[FileDigest, ...]:
        """The files, digested so."""
        return self.by(algorithm).files


@dataclass
class Finder:
    """Looks for the data of one product of one run."""

    config: Config
    evidence: Evidence
    store: Store
    staging: Store
    run: Run
    product: str

    def find(self, data_type: str, known: Target | None) -> Found:
        """The data of a data type, whole.

        Raises:
            StepFailed: if they are not there, or nothing tells which they are.
            Damaged: if they are not whole, or contradict their entry in the run document.
        """
        names = [known.folder] if known else self.evidence.folders(self.run, self.product, data_type)
        for place in (self.store, self.staging):
            there = place.names()
            for name in names:
                if name in there:
                    return self._look(place, name, data_type, known)
        raise StepFailed(self._why_not(data_type, names))

    def _why_not(self, data_type: str, names: list[str]) -> str:
        prefix = f"{self.run.id}-{data_type}-"
        others = [n for place in (self.store, self.staging) for n in place.names() if n.startswith(prefix)]
        why = self.evidence.why_no_lineage(self.product)
        told = f"{data_type}: neither in the store nor in staging"
        if others:
            told = (
                f"{data_type}: found {', '.join(dict.fromkeys(others))}, but neither the run document nor the "
                f"configuration ({', '.join(names) or 'which tells none'}) says that it is this product"
            )
        return f"{told}; {why}" if why else told

    def _look(self, place: Store, name: str, data_type: str, known: Target | None) -> Found:
        manifest = place.manifest(name, self.config.checksum)
        strax = self.config.products[self.product].kind == "strax"
        target = self._strax_target(place, name, manifest) if strax else _command_target(place, name, manifest)
        if known:
            target = known
        entries = [e for e in self._entries(data_type) if folder_of(self.run, e) == name]
        facts: dict[str, Any] = {
            "n_chunks": target.chunks,
            "file_count": target.files,
            "size_mb": round(target.bytes / 1e6, 3),
            "digest": manifest.fingerprint,
        }
        for entry in entries:
            if odd := contradictions(entry, facts):
                raise Damaged(f"{place.where}/{name} is not what was registered: {'; '.join(odd)}")
        return Found(target, manifest, place, place is self.store, entries)

    def _strax_target(self, place: Store, name: str, manifest: Manifest) -> Target:
        folder = Path(place.where) / name
        file = metadata_name(name)
        if file not in manifest.by_path:
            raise Damaged(f"{folder}: has no strax metadata")
        metadata = parse_metadata(str(folder / file), place.read_file(name, file))
        sizes = {f.path: f.size for f in manifest.files}
        found = check_strax_files(folder, metadata, sizes, coverage(self.config, self.run.facts))
        return Target(
            folder=name,
            lineage_hash=found.lineage_hash,
            lineage=self._lineage(found.data_type, name, metadata),
            chunks=found.n_chunks,
            records=found.n_records,
            bytes=manifest.bytes,
            files=len(manifest.files),
            start_ns=found.start,
            end_ns=found.end,
            digest=manifest.digest,
        )

    def _lineage(self, data_type: str, name: str, metadata: dict[str, Any]) -> dict[str, Any]:
        """In strax' own order of keys, which the entry has and the metadata file has not."""
        for entry in self._entries(data_type):
            meta = entry.get("meta")
            if folder_of(self.run, entry) == name and isinstance(meta, Mapping):
                lineage = meta.get("lineage")
                if lineage and isinstance(lineage, Mapping):
                    return dict(lineage)
        lineage = metadata.get("lineage")
        return dict(lineage) if isinstance(lineage, Mapping) else {}

    def _entries(self, data_type: str) -> list[Document]:
        return self.evidence.entries(self.run, data_type, self.config.store_hosts)


def _command_target(place: Store, name: str, manifest: Manifest) -> Target:
    if not manifest.files or any(not f.size for f in manifest.files):
        raise Damaged(f"{place.where}/{name}: holds no file, or an empty one")
    lineage = name.rpartition("-")[2]
    return Target(
        folder=name,
        lineage_hash=lineage,
        chunks=0,
        records=0,
        bytes=manifest.bytes,
        files=len(manifest.files),
        digest=manifest.digest,
    )
