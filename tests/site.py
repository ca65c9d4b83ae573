"""A private deployment in a folder: the repository linked in, its own config, folders, database and simulated DAQ."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from pymongo import MongoClient

from straxflow import attempts
from straxflow.config import Config, load_files
from straxflow.folders import init_folders
from straxflow.lab.daq import Daq, RunPlan, RunSummary
from straxflow.lab.daq.daq import run_document
from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from straxflow.owner import Owner, process_fields, process_start
from straxflow.receipts import State

ROOT = Path(__file__).resolve().parents[1]
PROFILES = ("local", "demo", "stoomboot")
DAQ_HOST = "test-daq"
Document = dict[str, Any]


QUICK_PRODUCTS: Document = {
    "raw": {"from": "live", "kind": "command", "command": "rsync -am --min-size=1 {source}/{run}/ {output}/data"},
    "sums": {
        "from": "raw",
        "kind": "command",
        "command": "sh -c 'cd {source} && find {run}-raw-*/data -type f | sort | xargs cat | cksum > {output}/sums'",
        "modes": {"exclude": ["led"]},
    },
}
STRAX_PRODUCTS: Document = {
    "raw_records": {"from": "live"},
    "peaks": {"from": "raw_records", "modes": {"exclude": ["led"]}},
    "events": {"from": "peaks", "modes": {"exclude": ["led"]}},
    "led_calibration": {"from": "raw_records", "modes": {"include": ["led"]}},
}

_databases = itertools.count()


@dataclass(frozen=True)
class Result:
    """How a command line ended, and all it said."""

    code: int
    output: str

    @property
    def jobs(self) -> list[str]:
        """The jobs in the order they were planned or begun: `rule run/product` (claims and `all` left out)."""
        found = []
        for rule, body in re.findall(r"^(?:local)?(?:rule|checkpoint) (\w+):\n((?: {4}.*\n)+)", self.output, re.M):
            if rule in ("all", "claim"):
                continue
            wild = re.search(r"^ {4}wildcards: (.*)$", body, re.M)
            values = dict(pair.split("=", 1) for pair in wild[1].split(", ")) if wild else {}
            found.append(f"{rule} {'/'.join(values[k] for k in ('run', 'product') if k in values)}".strip())
        return found


@dataclass
class Site:
    """A private deployment. `snakemake(...)` runs the literal command line in it."""

    folder: Path
    rundb: RunDbServer
    sshd: Sshd
    profile: str = "local"
    settings: Document = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder = self.folder.resolve()
        self.database = f"site_{os.getpid()}_{next(_databases)}"
        self.root = self.folder / "repository"
        self.root.mkdir(parents=True)
        for name in ("Snakefile", "workflow", "straxflow", "profiles"):
            (self.root / name).symlink_to(ROOT / name)
        for name in PROFILES:
            (self.root / name).symlink_to(f"profiles/{name}")
        (self.root / "config").mkdir()
        (self.folder / "daq").mkdir()
        self.client: MongoClient[Document] = MongoClient(self.rundb.uri, tz_aware=True)
        self.runs = self.client[self.database]["runs"]
        self.daq = Daq(self.folder / "daq", self.runs, DAQ_HOST)
        own = self.settings
        self.settings = {
            "site": "testsite",
            "folders": {name: str(self.folder / name) for name in ("state", "live", "staging")},
            "store": {"folder": str(self.folder / "store"), "min_free_gb": 0, "max_used_percent": 100},
            "rundb": {"uri": self.rundb.uri, "database": self.database, "timeout_s": 6},
            "daq": {
                "host": DAQ_HOST,
                "folder": str(self.folder / "daq"),
                "ssh": self.sshd.host,
                "ssh_options": self.sshd.ssh_options,
            },
            "disks": {kind: {"min_free_gb": 0, "max_used_percent": 100} for kind in ("state", "live", "staging")},
            "runs": {"min_run_number": 1, "settle_s": 0},
            "transfer": {"length_tolerance_s": 0.1, "timeout_s": 20},
            "claim": {"lease_s": 60},
            "failures": {"backoff_s": 0},
            "strax": {"context": "straxflow.detectors.demo:context", "max_gap_s": 1},
            "products": QUICK_PRODUCTS,
        }
        self.configure(**own)
        self.init()

    def configure(self, **changes: Any) -> None:
        """Change settings (sections are merged, `products` and None replace) and write the config file."""
        for key, value in changes.items():
            there = self.settings.get(key)
            if isinstance(there, dict) and isinstance(value, dict) and key != "products":
                self.settings[key] = {**there, **value}
            else:
                self.settings[key] = value
        self.settings = {k: v for k, v in self.settings.items() if v is not None}
        text = yaml.safe_dump(self.settings, sort_keys=False)
        for name in ("config.yaml", "xams.yaml"):
            (self.root / "config" / name).write_text(text)

    @property
    def config(self) -> Config:
        """The configuration as straxflow reads it."""
        return load_files([self.root / "config" / "config.yaml"], self.root)

    def state(self, campaign: str = "online") -> State:
        """The state folder of a campaign."""
        return State(self.config.folders.state / campaign)

    def init(self, campaign: str = "online") -> None:
        """Make the folders and their markers (`straxflow init`)."""
        init_folders(self.config, self.state(campaign))

    def close(self) -> None:
        """Drop the database, unless its server is one of the test's own that has ended."""
        if self.rundb.running:
            self.client.drop_database(self.database)
        self.client.close()

    def take(
        self, number: int, mode: str = "background", size_mb: float = 2.0, start: datetime | None = None, **plan: Any
    ) -> RunSummary:
        """Let the DAQ take a run."""
        return self.daq.take(RunPlan(number, mode, size_mb=size_mb, **{"seed": number, **plan}), start=start)[1]

    def document(self, number: int, mode: str = "background", **changes: Any) -> None:
        """Insert the document of a finished run that has no data at all."""
        start = datetime.now(UTC) - timedelta(hours=1)
        document = run_document(
            RunPlan(number, mode, duration_s=2), self.folder / "daq", DAQ_HOST, self.daq.detector, start
        )
        self.runs.insert_one({**document, "end": start + timedelta(seconds=2), **changes})

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of a shell in which nothing of straxflow is set."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("STRAXFLOW_", "PYTEST_"))}
        for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH"):
            clean.pop(name, None)
        path = f"{ROOT / '.venv' / 'bin'}:{clean['PATH']}:/usr/sbin:/sbin"
        return {**clean, "PATH": path, "STRAXFLOW_CACHE": str(ROOT / ".cache"), **(extra or {})}

    def command(self, *words: str, env: Mapping[str, str] | None = None, timeout_s: float = 240) -> Result:
        """Run any command line in the repository's root."""
        process = subprocess.Popen(
            words, cwd=self.root, env=self.environment(env), text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        return Result(process.returncode, output)

    def snakemake(self, *words: str, env: Mapping[str, str] | None = None, timeout_s: float = 240) -> Result:
        """snakemake --profile <profile> <words>."""
        return self.command(*self.argv(*words), env=env, timeout_s=timeout_s)

    def argv(self, *words: str) -> list[str]:
        """The literal command line."""
        return ["snakemake", "--profile", self.profile, *words]

    def dry_run(self, *words: str, **options: Any) -> Result:
        """The same with -n."""
        return self.snakemake("-n", *words, **options)

    @contextlib.contextmanager
    def background(
        self, *words: str, env: Mapping[str, str] | None = None, argv: Sequence[str] = ()
    ) -> Iterator[Background]:
        """A snakemake (or what `argv` says) that runs beside the test; whatever is left of it is killed at the end."""
        log = self.folder / f"background-{time.monotonic_ns()}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [*argv] or self.argv(*words), cwd=self.root, env=self.environment(env),
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        running = Background(process, log)
        running.see([process.pid])
        try:
            yield running
        finally:
            for one in running.seen:
                # pids are given anew within minutes, but not while a group of that number lives
                if process_start(one.pid) in (None, one.start):
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.killpg(one.pid, signal.SIGKILL)
            process.wait()

    def doc(self, number: int) -> Document:
        """The document of a run."""
        found = self.runs.find_one({"number": number})
        assert found is not None
        return found

    def status(self, number: int, campaign: str = "online") -> str | None:
        """The state of a run in its document."""
        document = self.doc(number)
        holder = document if campaign == "online" else document.get("straxflow", {}).get(campaign, {})
        value = holder.get("processing_status")
        return value["status"] if isinstance(value, dict) else value

    def reason(self, number: int) -> str:
        """Why a run is in its state."""
        return str(self.doc(number)["processing_status"]["reason"])

    def dump_database(self) -> list[Document]:
        """All run documents."""
        return list(self.runs.find().sort("_id", 1))

    def dump_files(self) -> dict[str, tuple[int, int]]:
        """Size and time of all files outside .snakemake; folders too."""
        return {
            str(path.relative_to(self.folder)): (path.stat().st_size, path.stat().st_mtime_ns)
            for path in sorted(self.folder.rglob("*"))
            if ".snakemake" not in path.parts and not path.name.startswith("background-") and path.is_file()
        }

    def receipts(self, run: str, campaign: str = "online") -> dict[str, Document]:
        """All receipts of a run, by path relative to its folder."""
        folder = self.state(campaign).run(run)
        return {
            str(path.relative_to(folder)): json.loads(path.read_text())
            for path in sorted(folder.rglob("*.json"))
            if "attempts" not in path.parts and path.name != "claim.json"
        }

    def attempts(self, run: str, campaign: str = "online") -> list[attempts.Attempt]:
        """All attempts of a run, oldest first."""
        return [file.attempt for file in attempts.all_of(self.state(campaign), run)]

    def scratch(self) -> list[str]:
        """Hidden leftovers anywhere in this deployment's folders."""
        found = []
        for top in ("live", "staging", "staging/.scratch", "store"):
            folder = self.folder / top
            if folder.is_dir():
                found += [f"{top}/{p.name}" for p in folder.iterdir() if re.match(r"\.(incoming|differs)-", p.name)]
        return sorted(found + [str(p) for p in (self.folder / "state").rglob(".incoming-*")])

    def products(self, place: str = "store") -> dict[str, str]:
        """Digest of every data file below a folder, by relative path; strax metadata without times and host."""
        folder = self.folder / place
        found = {}
        for path in sorted(folder.rglob("*")):
            relative = path.relative_to(folder)
            if path.is_file() and not relative.parts[0].startswith("."):
                found[str(relative)] = _digest(path)
        return found

    def forget(self, run: str, *receipts: str) -> None:
        """Remove receipts of a run."""
        for name in receipts:
            (self.state().run(run) / name).unlink()


@dataclass
class Background:
    """A snakemake that runs beside the test."""

    process: subprocess.Popen[bytes]
    log: Path
    seen: set[Owner] = field(default_factory=set)

    @property
    def output(self) -> str:
        """What it said so far."""
        return self.log.read_text(errors="replace")

    def wait(self, timeout_s: float = 120) -> Result:
        """Wait for its end."""
        try:
            return Result(self.process.wait(timeout_s), self.output)
        except subprocess.TimeoutExpired:
            left = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in descendants(self.process.pid)]
            raise AssertionError(f"did not end within {timeout_s} s; {left} are left:\n{self.output[-4000:]}") from None

    def see(self, pids: Iterable[int]) -> None:
        """Remember processes that must not outlive the test."""
        self.seen |= {Owner.of(pid) for pid in pids}

    def kill(self) -> None:
        """kill -9 to the main process alone; its children become orphans."""
        self.see(descendants(self.process.pid))
        self.process.kill()
        self.process.wait()

    def until(self, condition: Callable[[], Any], timeout_s: float = 60) -> Any:
        """Wait until something is there while it still runs; gives it."""
        return wait_until(condition, timeout_s, lambda: self.process.poll() is None, lambda: self.output)


def wait_until(
    condition: Callable[[], Any], timeout_s: float = 60,
    alive: Callable[[], bool] = lambda: True,
    words: Callable[[], str] = str,
) -> Any:  # fmt: skip
    """Poll until a condition gives something true."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        if not alive() or time.monotonic() > deadline:
            raise AssertionError(f"did not come true ({'too slow' if alive() else 'it ended'}):\n{words()[-3000:]}")
        time.sleep(0.01)
    return found


def descendants(pid: int) -> list[int]:
    """All processes below one, nearest first."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := process_fields(int(entry.name))):
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        children = parents.get(todo.pop(0), [])
        found += children
        todo += children
    return found


def _digest(path: Path) -> str:
    import xxhash

    if path.name.endswith("-metadata.json"):
        metadata = _without_times(json.loads(path.read_text()))
        return xxhash.xxh3_128_hexdigest(json.dumps(metadata, sort_keys=True).encode())
    return xxhash.xxh3_128_hexdigest(path.read_bytes())


def _without_times(value: Any) -> Any:
    times = ("writing_started", "writing_ended", "creation_time", "host", "hostname")
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if k not in times}
    return [_without_times(v) for v in value] if isinstance(value, list) else value
