"""Take simulated runs: python -m straxflow.lab.daq --folder live --runs 3 --size-mb 20."""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from straxflow.lab.daq.daq import Daq
from straxflow.lab.daq.plan import MODES, RunPlan

if TYPE_CHECKING:
    from pymongo.collection import Collection


def main(argv: list[str] | None = None) -> int:
    """Run the command line; give its exit code."""
    parser = argparse.ArgumentParser(prog="python -m straxflow.lab.daq", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the live data go")
    parser.add_argument("--uri", help="MongoDB to keep the run documents in; none without it")
    parser.add_argument("--database", default="run")
    parser.add_argument("--collection", default="runs")
    parser.add_argument("--host", default="daq", help="the host named in the documents")
    parser.add_argument("--detector", default="demo")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--first", type=int, default=1, help="number of the first run, if none is known yet")
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=["background"], help="taken in turn")
    parser.add_argument("--size-mb", nargs="+", type=float, default=[20.0], help="taken in turn")
    parser.add_argument("--duration", type=float, help="seconds of data; from the mode's rate if not given")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--compressor", default="lz4", choices=["lz4", "blosc", "zstd"])
    parser.add_argument("--chunk-length", type=float, default=0.0, help="seconds; 5 if not given, less for short runs")
    parser.add_argument("--chunk-overlap", type=float, default=0.0, help="seconds; a tenth of the length if not given")
    parser.add_argument("--interval", type=float, default=0.0, help="seconds between runs")
    parser.add_argument("--realtime", action="store_true", help="write no faster than the run's own clock")
    args = parser.parse_args(argv)

    collection: Collection[dict[str, Any]] | None = None
    if args.uri:
        from pymongo import MongoClient

        collection = MongoClient(args.uri, tz_aware=True)[args.database][args.collection]
    daq = Daq(args.folder, collection, args.host, args.detector)
    for i in range(args.runs):
        mode, size = args.modes[i % len(args.modes)], args.size_mb[i % len(args.size_mb)]
        if i:
            time.sleep(args.interval)
        try:
            plan = RunPlan(
                daq.next_number(args.first),
                mode,
                size_mb=size,
                duration_s=args.duration,
                seed=args.seed,
                compressor=args.compressor,
                chunk_length_s=args.chunk_length,
                chunk_overlap_s=args.chunk_overlap,
            )
        except ValueError as error:
            parser.error(str(error))
        head = f"run {plan.number:06d} {mode:<12}"
        _, summary = daq.take(plan, realtime=args.realtime, progress=partial(_show, head))
        megabytes = summary.plain_bytes / 1e6
        print(
            f"{chr(13) if sys.stdout.isatty() else ''}{head} {plan.seconds:8.1f} s of data, "
            f"{summary.chunks} chunks, {summary.records} records, {megabytes:.1f} MB "
            f"({summary.disk_bytes / 1e6:.1f} MB on disk) at {megabytes / summary.seconds:.0f} MB/s",
            flush=True,
        )
    return 0


def _show(head: str, done: int, total: int) -> None:
    if sys.stdout.isatty():
        print(f"\r{head} chunk {done}/{total}", end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
