"""`straxflow process --private`: products in a folder of one's own, made here and now."""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from straxflow.cli.site import Site
from straxflow.errors import StraxflowError, UsageError
from straxflow.private import Private
from straxflow.receipts import Processed, RunFacts
from straxflow.rundb.client import connect
from straxflow.rundb.rundoc import parse, query_for
from straxflow.runlist import parse_runs

LINE_S = 10.0
"""How often progress is told where there is no terminal, seconds."""


def run_private(arguments: argparse.Namespace, site: Site, products: Sequence[str]) -> int:
    """Make the products of the named runs, one after the other."""
    if not products:
        raise UsageError("--private needs a --target")
    named = parse_runs(arguments.runs, site.config)
    runs = list(dict.fromkeys([*named.single(), *named.ids(site.config, site.state)]))
    if not runs:
        raise StraxflowError("none of these runs is at this site")
    folder = Path(arguments.private).expanduser().absolute().resolve()
    private = Private(site.config, site.state, site.campaign, folder, arguments.from_scratch)
    if not arguments.dry_run:
        private.prepare()
    told: list[dict[str, object]] = []
    failed = 0
    for run in runs:
        for product in products:
            try:
                told.append(_one(arguments, site, private, run, product))
            except StraxflowError as error:
                if isinstance(error, UsageError) and len(runs) == 1:
                    raise
                failed += 1
                print(f"{error}", file=sys.stderr)
    if arguments.json:
        print(json.dumps({"folder": str(folder), "made": told}, indent=1))
    elif told and not arguments.dry_run:
        print(f"{len(told)} made, {failed} failed; to read them: strax.DataDirectory({str(folder)!r}, readonly=True)")
    return 1 if failed else 0


def _one(arguments: argparse.Namespace, site: Site, private: Private, run: str, product: str) -> dict[str, object]:
    facts = _facts(site, run)
    chain = private.to_make(facts, product)
    if arguments.dry_run:
        words = ", then ".join(chain) if chain else "nothing: it is there already"
        _say(arguments, f"run {run}: would make {words} in {private.folder}")
        return {"run": run, "product": product, "to_make": chain}
    folders: list[str] = []
    for one in chain:
        _say(arguments, f"run {run}: making {one} (log: {private.log_file(run, one)})")
        with _progress(private, f"run {run}: {one}"):
            made = private.make(facts, one)
        folders = [target.folder for target in made.targets.values()]
        _say(arguments, f"run {run}: {_described(made)}")
    if not chain:
        made = private.own_state.get(run, product, Processed)
        folders = [target.folder for target in made.targets.values()]
        _say(arguments, f"run {run}: {product} is there already: {', '.join(folders)}")
    return {"run": run, "product": product, "to_make": chain, "folders": folders}


def _facts(site: Site, run: str) -> RunFacts:
    """Facts of a run, from its run.json or, read only, from its document."""
    if (site.state.run(run) / RunFacts.name).is_file():
        return site.state.facts(run)
    with connect(site.config) as db:
        document = db.runs.find_one(query_for(run, site.config))
    if document is None:
        raise StraxflowError(f"run {run}: neither at this site nor in the run database")
    return parse(document, site.config, site.campaign).facts


def _described(made: Processed) -> str:
    parts = [
        f"{name} is in {target.folder} ({target.chunks} chunks, {target.records} records, {target.bytes / 1e6:.1f} MB)"
        for name, target in made.targets.items()
    ]
    copied = "copied from what is stored" if made.adopted else "made"
    return f"{copied} in {made.seconds:.1f} s: {'; '.join(parts)}"


@contextmanager
def _progress(private: Private, what: str) -> Iterator[None]:
    """Tell on stderr how long it has taken and how much was written: a line that renews itself, or one now and then."""
    stop, terminal, began = threading.Event(), sys.stderr.isatty(), time.monotonic()

    def tell() -> None:
        while not stop.wait(1 if terminal else LINE_S):
            words = f"{what}: {time.monotonic() - began:.0f} s, {private.bytes_so_far() / 1e6:.1f} MB written"
            print(f"\r{words}" if terminal else words, end="" if terminal else "\n", file=sys.stderr, flush=True)
        if terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        stop.set()
        teller.join()


def _say(arguments: argparse.Namespace, text: str) -> None:
    if not arguments.json:
        print(text, flush=True)
