"""A private deployment without a run database: runs are found in the DAQ's folders."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from straxflow.lab.daq import Daq, RunPlan, RunSummary
from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from straxflow.rundb import folders
from straxflow.rundb.client import connect
from tests.site import QUICK_PRODUCTS, Document, Site


@dataclass
class _NoDatabase:
    """Where a test that asks for a database after all finds none."""

    uri: str = "mongodb://127.0.0.1:1/"


class FolderSite(Site):
    """A site of kind `folders`; `remote` reaches the DAQ over ssh."""

    def __init__(self, folder: Path, sshd: Sshd | None = None, **settings: Any) -> None:
        self.remote = sshd is not None
        first: Document = {"rundb": {"kind": "folders"}, "discovery": {"facts_file": "{folder}.json", "look_s": 0.001}}
        if sshd is None:
            first["daq"] = {"ssh": None, "ssh_options": []}
        for name, changes in settings.items():
            first[name] = {**first[name], **changes} if name in first else changes
        super().__init__(folder, cast("RunDbServer", _NoDatabase()), sshd or cast("Sshd", _NoSshd()), settings=first)
        self.client.close()
        folders.create(self.config)
        self.runs = folders.open_runs(self.config)
        self.daq = Daq(self.folder / "daq")

    def close(self) -> None:
        """Nothing to drop."""

    def take(self, number: int, mode: str = "background", size_mb: float = 2.0, **plan: Any) -> RunSummary:
        """Let the DAQ take a run, and leave its facts beside it."""
        document, summary = self.daq.take(RunPlan(number, mode, size_mb=size_mb, **{"seed": number, **plan}))
        self.leave_facts(number, document)
        return summary

    def leave_facts(self, number: int, document: Document) -> None:
        """Write the file that the DAQ leaves beside a run."""
        facts = {k: v for k, v in document.items() if k in ("start", "end", "mode", "detectors", "daq_config", "rate")}
        file = self.folder / "daq" / f"{number:06d}.json"
        file.write_text(json.dumps(facts, default=lambda moment: moment.isoformat()))


@dataclass
class _NoSshd:
    host: str = "nowhere"
    ssh_options: tuple[str, ...] = ()


__all__ = ["QUICK_PRODUCTS", "FolderSite", "connect"]
