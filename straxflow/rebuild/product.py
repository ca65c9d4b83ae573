"""The receipts of one product, from its data in the store or in staging."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from straxflow.config import LIVE, Config
from straxflow.digests import Manifest, describe
from straxflow.errors import Damaged, StraxflowError
from straxflow.fsio import write_atomic
from straxflow.known import known_manifests, unlike_known
from straxflow.rebuild.data import Finder, Found
from straxflow.rebuild.evidence import Evidence
from straxflow.rebuild.files import Receipts
from straxflow.receipts import Checksums, LiveFacts, Processed, Registered, Stored
from straxflow.rundb.client import Document
from straxflow.rundb.entries import jsonable
from straxflow.rundb.rundoc import Run
from straxflow.settings import settings_digest

UNKNOWN = "unknown"
"""In place of the settings' digest where nothing tells how data were made: they show as outdated."""


@dataclass
class ProductRebuild:
    """One product of one run."""

    config: Config
    evidence: Evidence
    finder: Finder
    run: Run
    product: str
    receipts: Receipts
    live: LiveFacts | None

    def rebuild(self) -> None:
        """Make the receipts that are missing, as far as they can be verified."""
        lacking = self.receipts.lacking()
        if not lacking:
            return
        made = self.receipts.find(Processed)
        names = list(made.targets) if made else self.config.targets(self.product)
        found = {}
        for data_type in names:
            try:
                found[data_type] = self.finder.find(data_type, made.targets[data_type] if made else None)
            except (StraxflowError, OSError) as error:
                self.receipts.problem(f"{data_type}: {error}")
        if len(found) < len(names):
            return
        how = self._verified_by(found)
        sums = self.receipts.find(Checksums)
        if sums is None:
            self._must_be_as_known(found)
        elif differing := self._differs(sums, found):
            self.receipts.problem(f"differs from {Checksums.name}: {differing}")
            return
        if made is None:
            self.receipts.make(self._processed(found, how))
        if sums is None:
            self._checksums(found, how)
        if all(one.stored for one in found.values()):
            if self.receipts.find(Stored) is None:
                self._stored(found, how)
            if self.receipts.find(Registered) is None:
                self._registered(found)
        elif Stored in lacking:
            self.receipts.problem("in staging only: move_out stores it")

    def _verified_by(self, found: Mapping[str, Found]) -> str:
        """What the data were compared with, for the receipts."""
        whole = "strax' own metadata" if self.config.products[self.product].kind == "strax" else "their names"
        known = all(any(_digest_of(e) for e in one.entries) for one in found.values())
        if known:
            return f"{whole}, and the digest in the run document"
        if all(one.entries for one in found.values()):
            return f"{whole}, and the counts in the run document (it holds no digest)"
        return f"{whole} alone (the run document has no entry)"

    def _processed(self, found: Mapping[str, Found], how: str) -> Processed:
        product = self.config.products[self.product]
        records_in = records_out = None
        raw = [one.target.records for name, one in found.items() if fnmatchcase(name, product.counted)]
        if product.source == LIVE and self.live and raw:
            records_in, records_out = self.live.records, sum(raw)
            if records_out > records_in:
                raise Damaged(f"has {records_out} records, more than the {records_in} of the live data")
        today = self.evidence.lineage(self.product)
        same = all(today.get(name) == one.target.lineage_hash for name, one in found.items())
        if not same:
            self.receipts.note("was made with other settings than today's, so it shows as outdated")
        metas = [e.get("meta") for one in found.values() for e in one.entries]
        told = [m["versions"] for m in metas if isinstance(m, Mapping) and isinstance(m.get("versions"), Mapping)]
        return Processed(
            run=self.run.id,
            product=self.product,
            source=product.source,
            targets={name: one.target for name, one in found.items()},
            settings=settings_digest(self.config, self.product) if same else UNKNOWN,
            records_in=records_in,
            records_out=records_out,
            versions={str(name): str(version) for name, version in (told[0] if told else {}).items()},
            host=UNKNOWN,
            seconds=0,
            cpu_seconds=0,
            peak_rss_mb=0,
            adopted=", ".join(one.target.folder for one in found.values()),
            rebuilt=how,
        )

    def _must_be_as_known(self, found: Mapping[str, Found]) -> None:
        known = known_manifests(self.config.folders.state, self.run.id, found)
        for one in found.values():
            if why := unlike_known(known, one.target.folder, one.by):
                raise Damaged(f"{one.target.folder} differs from the lists of its files in the state folder: {why}")

    def _checksums(self, found: Mapping[str, Found], how: str) -> None:
        rows = [
            (f"{one.target.folder}/{f.path}", f.size, f.digest) for one in found.values() for f in one.manifest.files
        ]
        manifest = Manifest.from_rows(self.config.checksum, rows)
        file = self.receipts.folder / f"{self.config.checksum}sums.txt"
        if file.is_file():
            how += f", and {file.name}"
        receipt = Checksums(
            run=self.run.id,
            product=self.product,
            algorithm=manifest.algorithm,
            files=manifest.rows,
            list_file=file.name,
            seconds=0,
            rebuilt=how,
        )
        if self.receipts.make(receipt):
            write_atomic(file, manifest.to_list())

    def _differs(self, sums: Checksums, found: Mapping[str, Found]) -> str | None:
        """How the data differ from a manifest that is there: strax metadata may, they hold write times."""
        odd = []
        for one in found.values():
            differences = sums.manifest_of(one.target.folder).differences(one.digests(sums.algorithm))
            odd += [
                d for d in differences if not (_is_metadata(d.path) and one.stored and d.kind in ("size", "digest"))
            ]
        return describe(odd) if odd else None

    def _stored(self, found: Mapping[str, Found], how: str) -> None:
        sums = self.receipts.find(Checksums)
        adopted: list[str] = []
        rows: list[tuple[str, int, str]] = []
        if sums:
            for one in found.values():
                name, files = one.target.folder, one.digests(sums.algorithm)
                adopted += [name] if sums.manifest_of(name).differences(files) else []
                rows += [(f"{name}/{f.path}", f.size, f.digest) for f in files]
        self.receipts.make(
            Stored(
                run=self.run.id,
                product=self.product,
                site=self.config.site,
                location=str(self.config.store.folder),
                folders=[one.target.folder for one in found.values()],
                bytes=sum(one.target.bytes for one in found.values()),
                seconds=0,
                adopted=adopted,
                algorithm=sums.algorithm if sums and adopted else None,
                files=rows if adopted else [],
                rebuilt=how,
            )
        )

    def _registered(self, found: Mapping[str, Found]) -> None:
        wanted = [(name, host) for host in self.config.store_hosts for name in found]
        store = str(self.config.store.folder)
        there = {
            (name, entry.get("host")): entry
            for name, one in found.items()
            for entry in one.entries
            if str(entry.get("location")).rstrip("/") in (store, f"{store}/{one.target.folder}")
        }
        if missing := [f"{name} at {host}" for name, host in wanted if (name, host) not in there]:
            self.receipts.problem(f"has no entry in the run document for {', '.join(missing)}: register writes it")
            return
        entries = [jsonable(there[key]) for key in wanted]
        self.receipts.make(
            Registered(run=self.run.id, product=self.product, entries=entries, rebuilt="the run document")
        )


def _is_metadata(path: str) -> bool:
    return path.endswith("-metadata.json")


def _digest_of(entry: Document) -> Any:
    sums = entry.get("checksum")
    return sums.get("digest") if isinstance(sums, Mapping) else None
