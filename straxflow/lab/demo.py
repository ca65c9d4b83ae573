"""The demo: a simulated DAQ takes runs, and the real workflow brings them all the way into the store.

`python -m straxflow.lab.demo` (make demo) takes new runs each time; `--stop` ends the background parts.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import yaml
from pymongo import MongoClient
from rich.console import Console
from rich.table import Table

from straxflow.batch import campaign_name
from straxflow.config import Config, load_files, profile_files
from straxflow.config.load import ROOT
from straxflow.errors import StraxflowError
from straxflow.folders import init_folders
from straxflow.lab.daq import Daq, RunPlan
from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from straxflow.receipts import Processed, Receipt, Registered, State, Stored, Transferred

FOLDER = ROOT / ".demo"
PROFILE = "demo"
RUNS = (("background", 12.0), ("calibration", 40.0), ("led", 6.0), ("background", 25.0))


def main() -> int:
    """Run the demo; its exit code is the workflow's."""
    parser = argparse.ArgumentParser(prog="python -m straxflow.lab.demo", description=__doc__)
    parser.add_argument("--stop", action="store_true", help="end the run database and sshd of the demo")
    parser.add_argument("--runs", type=int, default=len(RUNS), help="how many runs to take")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 130
    rundb = RunDbServer(FOLDER / "rundb", die_with_parent=False)
    sshd = Sshd(FOLDER / "sshd", die_with_parent=False)
    try:
        if arguments.stop:
            rundb.stop()
            sshd.stop()
            console.print("the demo's run database and sshd are stopped; its data are still in .demo/")
            return 0
        return _demo(console, rundb, sshd, arguments.runs)
    except StraxflowError as error:
        console.print(f"[red]the demo stopped:[/red] {error}")
        return 1


def _demo(console: Console, rundb: RunDbServer, sshd: Sshd, n_runs: int) -> int:
    console.print("[bold]1. A run database and an sshd, on loopback[/bold]")
    FOLDER.mkdir(exist_ok=True)
    rundb.start()
    sshd.start()
    ports = {
        "rundb": {"uri": rundb.uri},
        "daq": {"ssh": sshd.host, "ssh_options": sshd.ssh_options, "folder": str(FOLDER / "daq")},
    }
    (FOLDER / "ports.yaml").write_text("# written by make demo\n" + yaml.safe_dump(ports))
    config = load_files(profile_files(PROFILE))
    state = State(config.folders.state / campaign_name())
    init_folders(config, state)
    console.print(f"   run database at {rundb.uri}, sshd at {sshd.host} port {sshd.port}")

    console.print(f"[bold]2. The simulated DAQ takes {n_runs} runs[/bold]")
    collection = MongoClient[dict[str, object]](rundb.uri, tz_aware=True)["run"]["runs"]
    daq = Daq(FOLDER / "daq", collection, config.daq.host)
    taken = []
    for i in range(n_runs):
        mode, size_mb = RUNS[i % len(RUNS)]
        plan = RunPlan(daq.next_number(), mode, size_mb=size_mb, seed=i)
        _, summary = daq.take(plan)
        taken.append(f"{plan.number:06d}")
        console.print(
            f"   run {plan.number:06d} {mode:<12} {plan.seconds:6.1f} s, {summary.chunks} chunks, "
            f"{summary.records} records, {summary.plain_bytes / 1e6:.0f} MB"
        )

    console.print("[bold]3. snakemake --profile demo[/bold]  (rsync, strax, checksum, move-out, registration)")
    log = FOLDER / "snakemake.log"
    began = time.time()
    with log.open("w") as output:
        process = subprocess.Popen(
            ["snakemake", "--profile", PROFILE], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            seen: set[Path] = set()
            while process.poll() is None:
                time.sleep(0.3)
                _report_new(console, state, seen, began)
        except KeyboardInterrupt:
            process.wait()
    _report_new(console, state, seen, began)
    seconds = time.time() - began
    if process.returncode:
        console.print(f"[red]snakemake ended with exit code {process.returncode}[/red]; the end of {log}:")
        console.print(log.read_text(errors="replace")[-3000:], markup=False)
    console.print(f"[bold]4. What is where[/bold] (the workflow took {seconds:.1f} s)")
    console.print(_table(config, state, taken))
    if others := len(list(state.all_runs())) - len(taken):
        console.print(f"and {others} earlier runs: straxflow --profile demo status")
    console.print(_next_steps(config, state))
    return process.returncode


def _report_new(console: Console, state: State, seen: set[Path], since: float) -> None:
    for path in sorted(state.runs.glob("*/**/*.json")):
        if path in seen or "attempts" in path.parts or path.name in ("claim.json", "run.json"):
            continue
        seen.add(path)
        if path.stat().st_mtime >= since:
            run, *rest = path.relative_to(state.runs).parts
            what = rest[0] if len(rest) == 2 else "run"
            console.print(f"   {time.time() - since:5.1f} s  run {run}  {what:<16} {path.stem}")


def _table(config: Config, state: State, runs: list[str]) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for column in ("run", "mode", "product", "MB", "seconds", "MB/s", "state"):
        table.add_column(column, justify="right" if column in ("MB", "seconds", "MB/s") else "left", no_wrap=True)
    table.add_column("where", overflow="fold")
    for run in runs:
        facts = state.facts(run)
        received = state.find(run, "live", Transferred)
        if received is None:
            table.add_row(run, facts.mode, "live", "", "", "", "not transferred", "")
            continue
        size = received.bytes
        table.add_row(
            run, facts.mode, "live", f"{size / 1e6:.1f}", f"{received.seconds:.1f}",
            f"{size / 1e6 / received.seconds:.0f}", _state(state, run, "live"), _short(received.folder),
        )  # fmt: skip
        for product in config.products_for(facts.mode):
            made = state.find(run, product, Processed)
            stored = state.find(run, product, Stored)
            if made is None:
                table.add_row("", "", product, "", "", "", "not made", "")
                continue
            table.add_row(
                "", "", product, f"{made.bytes / 1e6:.1f}", f"{made.seconds:.1f}",
                f"{size / 1e6 / made.seconds:.0f}", _state(state, run, product),
                ", ".join(_short(f"{stored.location}/{f}") for f in stored.folders) if stored else "staging",
            )  # fmt: skip
    return table


def _state(state: State, run: str, product: str) -> str:
    chain: list[tuple[type[Receipt], str]] = [
        (Registered, "registered"), (Stored, "stored"), (Processed, "processed"), (Transferred, "transferred")
    ]  # fmt: skip
    return next((word for model, word in chain if state.path(run, product, model).is_file()), "-")


def _short(path: str) -> str:
    return os.path.relpath(path, ROOT)


def _next_steps(config: Config, state: State) -> str:
    run = max(state.all_runs(), default="000001")
    product = next(iter(config.products))
    return (
        "Try next (first: . .venv/bin/activate):\n"
        "  make demo                                 take more runs; only the new ones are worked on\n"
        "  snakemake --profile demo -n               preview what would be done now\n"
        "  straxflow --profile demo status           how every run stands\n"
        "  straxflow --profile demo check            is everything in order?\n"
        "  straxflow --profile demo dashboard        the status page: http://127.0.0.1:8080/\n"
        f"  snakemake --profile demo runs/{run}/{product}/registered.json -R register\n"
        "                                            do one step of one run again\n"
        "  make demo-stop                            end the demo's run database and sshd"
    )


if __name__ == "__main__":
    sys.exit(main())
