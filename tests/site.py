"""A private deployment: a repository root with a configuration of its own, a DAQ, and snakemake as typed there."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pymongo import MongoClient

from straxflow.config import Config, load_files
from straxflow.folders import init_folders
from straxflow.lab.daq import Daq, RunPlan
from straxflow.lab.rundb_server import RunDbServer
from straxflow.receipts import State

REPOSITORY = Path(__file__).resolve().parents[1]
LINKED = ("Snakefile", "workflow", "straxflow", "profiles", "local", "demo", "stoomboot")

# a product with a command starts at once; strax itself takes some seconds a process
COPY = 'python -c "import pathlib; pathlib.Path(r\'{output}/made\').write_text(\'{run} {product}\')"'


class Site:
    """A deployment in `folder`; all its data lie in there, its run documents in a database of its own.

    `config` is what the configuration files say; change it and call `configure` again.
    """

    def __init__(self, folder: Path, rundb: RunDbServer, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.environment = dict(environment or os.environ)
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for name in ("STRAXFLOW_BATCH", "STRAXFLOW_OWNER", "STRAXFLOW_CAMPAIGN"):
            self.environment.pop(name, None)
        self.database = f"test_{uuid.uuid4().hex[:8]}"
        self.runs = MongoClient[dict[str, Any]](rundb.uri, tz_aware=True)[self.database]["runs"]
        self.config: dict[str, Any] = {
            "site": "test",
            "folders": {name: str(folder / name) for name in ("state", "live", "staging")},
            "store": {"folder": str(folder / "store"), "min_free_gb": 0},
            "rundb": {"uri": rundb.uri, "database": self.database, "collection": "runs"},
            "daq": {"host": "testdaq", "folder": str(folder / "daq")},
            "transfer": {"wait_s": 1, "length_tolerance_s": 0.1},
            "runs": {"min_run_number": 1, "settle_s": 0},
            "strax": {"context": "straxflow.detectors.demo:context", "max_gap_s": 1},
            "products": {"raw_records": {"from": "live"}, "peaks": {"from": "raw_records"}},
            "claim": {"lease_s": 30, "backoff_s": 1},
        }
        self.root.mkdir(parents=True)
        for name in LINKED:
            (self.root / name).symlink_to(REPOSITORY / name)
        (self.root / "config").mkdir()
        self.daq = Daq(folder / "daq", self.runs, "testdaq")
        self.configure()

    def configure(self, **sections: Any) -> Config:
        """Change whole sections of the configuration, write it, make the folders."""
        self.config |= sections
        text = yaml.safe_dump(self.config, sort_keys=False)
        for name in ("config.yaml", "xams.yaml"):
            (self.root / "config" / name).write_text(text)
        (self.root / ".demo").mkdir(exist_ok=True)
        (self.root / ".demo/ports.yaml").write_text("{}\n")
        loaded = self.loaded
        init_folders(loaded, self.state)
        return loaded

    @property
    def loaded(self) -> Config:
        """The configuration as straxflow reads it."""
        return load_files([self.root / "config/config.yaml"], self.root)

    @property
    def state(self) -> State:
        """The state folder of the `online` campaign."""
        return State(self.folder / "state" / "online")

    def take(self, mode: str = "background", size_mb: float = 2, seed: int = 1, **plan: Any) -> str:
        """Let the DAQ take a run; its id."""
        number = self.daq.next_number()
        self.daq.take(RunPlan(number, mode, size_mb=size_mb, seed=seed, **plan))
        return f"{number:06d}"

    def document(self, run: str) -> dict[str, Any]:
        """The run document as it is now."""
        found = self.runs.find_one({"number": int(run)})
        assert found is not None
        return found

    def status(self, run: str) -> Any:
        """The word in processing_status."""
        status = self.document(run).get("processing_status")
        return status["status"] if isinstance(status, dict) else status

    def receipt(self, path: str) -> Path:
        """Place of a receipt, e.g. `000001/peaks/stored.json`."""
        return self.state.runs / path

    def start_snakemake(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start `snakemake ARGUMENTS` in the root, its output in one pipe."""
        return subprocess.Popen(
            ["snakemake", *arguments],
            cwd=self.root,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run_snakemake(
        self, *arguments: str, timeout_s: float = 240, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `snakemake ARGUMENTS` in the root to its end; its output in `stdout`."""
        process = self.start_snakemake(*arguments, **environment)
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            raise AssertionError(f"snakemake did not end within {timeout_s:g} s:\n{output}") from None
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    def snapshot(self) -> tuple[list[dict[str, Any]], dict[str, tuple[int, int]]]:
        """All run documents, and all files (size, mtime) outside .snakemake: what a preview must not change."""
        files = {}
        for top, folders, names in os.walk(self.folder):
            folders[:] = [name for name in folders if name != ".snakemake"]
            for name in [*folders, *names]:
                path = Path(top, name)
                stat = path.lstat()
                files[str(path.relative_to(self.folder))] = (stat.st_size, stat.st_mtime_ns)
        # snakemake makes .snakemake in the working folder
        for parent in (".", "root", "state/online"):
            files.pop(parent, None)
        return list(self.runs.find().sort("_id")), files
