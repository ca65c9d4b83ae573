"""Command line: python -m bench [--quick] [NAME...]."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from bench import (
    batch,
    chain,
    compression,
    delays,
    growth,
    hashing,
    kept,
    latency,
    memory,
    mirror,
    overhead,
    pending,
    preview,
    report,
    small_runs,
    transfer,
)
from bench.result import Result
from bench.site import Lab, lab
from straxflow.config.load import ROOT

BENCHES: dict[str, Callable[[Lab, bool], Result]] = {
    "transfer": transfer.bench,
    "delays": delays.bench,
    "chain": chain.bench,
    "small_runs": small_runs.bench,
    "batch": batch.bench,
    "growth": growth.bench,
    "preview": preview.bench,
    "pending": pending.bench,
    "latency": latency.bench,
    "overhead": overhead.bench,
    "memory": memory.bench,
    "mirror": mirror.bench,
    "hashing": hashing.bench,
    "compression": compression.bench,
}
KEPT = ROOT / ".cache" / "bench"
PAGE = ROOT / "docs" / "performance.md"


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Speed and memory against plain tools.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(BENCHES)}")
    parser.add_argument("--quick", action="store_true", help="small data, few repetitions; writes no page")
    parser.add_argument("--page", type=Path, help=f"write the page there (default, if whole: {PAGE.relative_to(ROOT)})")
    parser.add_argument(
        "--with-earlier", action="store_true", help="the page also has what other benches found in earlier calls here"
    )
    parser.add_argument("--folder", type=Path, help="work in this new folder; its disk is what is measured")
    arguments = parser.parse_args(argv)
    if unknown := [name for name in arguments.names if name not in BENCHES]:
        parser.error(f"no bench {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benches; 0 even if a goal is missed, which the report says, but 1 if a bench failed."""
    arguments = parse(argv)
    console = Console(highlight=False)
    found: dict[str, Result] = {}
    failed: list[str] = []
    # it removes what it made: folders, network namespaces, processes
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with lab(arguments.folder or ROOT / ".cache" / f"bench-{os.getpid()}") as parts:
        for name in arguments.names or BENCHES:
            start = time.monotonic()
            try:
                found[name] = kept.stamped(BENCHES[name](parts, arguments.quick), time.monotonic() - start)
            except Exception:
                # what the others found is not lost for that
                console.print_exception()
                failed.append(name)
                continue
            report.show(console, found[name])
            if not arguments.quick:
                kept.keep(KEPT, name, found[name])
    report.conclude(console, [*found.values()])
    if arguments.quick:
        console.print(
            "The goals are those of the whole bench: with so few data, start-ups weigh more than they do there."
        )
    page = arguments.page or (None if arguments.quick or arguments.names or failed else PAGE)
    if page:
        page.parent.mkdir(exist_ok=True)
        if arguments.with_earlier:
            everything = {name: found.get(name) or kept.find(KEPT, name) for name in BENCHES}
            found = {name: result for name, result in everything.items() if result}
        given = ["--quick"] * arguments.quick + ["--with-earlier"] * arguments.with_earlier + arguments.names
        page.write_text(report.markdown([*found.values()], given))
        console.print(f"written: {page}")
    if failed:
        console.print(f"failed, and not in the report: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
