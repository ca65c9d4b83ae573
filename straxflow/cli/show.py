"""`straxflow show`: everything about one run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from typing import Any

from straxflow.cli.output import Table, add, clock, coloured, emit, emit_json, one_line, plain, size, span, table, times
from straxflow.cli.site import Site, open_site
from straxflow.folders import marker_site
from straxflow.fsio import check_marker
from straxflow.receipts import Checksums, Processed, Receipt, Registered, Released, RunFacts, Stored, Transferred
from straxflow.reports.database import ask, run_named
from straxflow.reports.runview import InDatabase, RunView, in_database, of_run, words_of
from straxflow.rundb.rundoc import campaign_part

DESCRIPTION = (
    "Shows everything about a run: its document, tags and comments, state and why, claim, receipts, data entries and\n"
    "copies and whether they are there, what people did to it, attempts, logs. Exit code 1 if it is not known, or if\n"
    "--verify finds a copy that is not what its manifest says."
)
EXAMPLES = (
    "straxflow --profile stoomboot show 3012",
    "straxflow --profile stoomboot show 003012 --verify    reads all copies again, past the page cache",
)
MOST_ATTEMPTS = 30


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("run_id", metavar="RUN", help="a run: 932 or 000932")
    parser.add_argument("--verify", action="store_true", help="read the copies again and compare them (may take long)")
    parser.add_argument("--all", action="store_true", help=f"all attempts, not just the last {MOST_ATTEMPTS}")
    parser.add_argument("--json", action="store_true", help="as JSON, with the receipts whole")


def run(arguments: argparse.Namespace) -> int:
    """Print the run."""
    site = open_site(arguments)
    check_marker(site.state.folder, "state", marker_site(site.config, "state", site.state))
    run_id = run_named(site.config, site.state, arguments.run_id)
    found, problem = ask(site.config, lambda db: in_database(db, site.config, site.campaign, run_id))
    view = of_run(site.config, site.state, run_id, found or InDatabase(problem=problem), arguments.verify)
    if arguments.json:
        emit_json(_as_json(view))
    else:
        emit(*_told(site, view, arguments.all))
    bad = arguments.verify and any(copy.there in ("differs", "unknown", "missing") for copy in view.copies)
    return 1 if bad or not view.known else 0


def _told(site: Site, view: RunView, all_attempts: bool) -> Iterator[Table | str]:
    if not view.known:
        yield f"run {view.run}: not known here; {view.database.problem or 'nor to the run database'}"
        return
    yield from _head(site, view)
    yield from _document(site, view)
    if view.receipts:
        yield "\nreceipts (sizes, digests and places in full with --json):"
        yield _receipts(site, view)
    if view.copies:
        yield "\ncopies:"
        yield _copies(view)
    if view.database.entries:
        yield "\ndata entries of the run document:"
        yield _entries(view)
    if view.database.actions:
        yield "\nwhat people did:"
        yield from (f"  {action}" for action in view.database.actions)
    if view.attempts:
        rows = view.attempts if all_attempts else view.attempts[-MOST_ATTEMPTS:]
        more = f", the last {len(rows)} of {len(view.attempts)} (--all)" if len(rows) < len(view.attempts) else ""
        yield f"\nattempts (UTC){more}:"
        yield _attempts(view, len(rows))
    if view.logs:
        yield "\nlogs (their ends: straxflow logs):"
        made = table("  changed (UTC)", ">size", "path")
        for file in view.logs:
            add(made, f"  {clock(file.changed)}", size(file.bytes) or "0", file.path)
        yield made


def _head(site: Site, view: RunView) -> Iterator[str]:
    database, row = view.database, view.database.row
    facts = next((r.receipt for r in view.receipts if isinstance(r.receipt, RunFacts)), None)
    known = row or facts
    yield f"run {view.run}, site {site.config.site}, campaign {site.campaign}"
    if database.problem:
        yield f"  run database: {one_line(database.problem)}"
    if row and row.problem:
        yield f"  malformed: {row.problem}"
    if known:
        start, end, seconds = known.start, known.end, known.seconds
        taken = f"{clock(start)} to {clock(end) or 'now?'}" if start else "when is not known"
        yield f"  mode {known.mode}, {', '.join(known.detectors) or 'no detectors'}; {taken} {span(seconds)}"
    if row:
        rate = f", {row.rate_mb_s:.3g} MB/s" if row.rate_mb_s is not None else ""
        yield f"  live data: {'about ' if row.estimated else ''}{size(row.bytes) or 'size not known'}{rate}"
        since = f" since {clock(row.since)}" if row.since else ""
        yield f"  state in the run database: {row.state}{since}{f': {one_line(row.reason)}' if row.reason else ''}"
        if row.claimant:
            renewed = f", renewed {clock(row.claimant.renewed)}" if row.claimant.renewed else ""
            yield f"  claimed by {row.claimant}, invocation {row.claimant.batch}{renewed}"
        if row.failures or row.due:
            yield f"  failed {times(row.failures, 'time')}" + (f"; due again {clock(row.due)}" if row.due else "")
    if database.why_not and row and row.state != "done":
        yield f"  not claimed by the next invocation: {'; '.join(map(one_line, database.why_not))}"
    if view.status:
        why = f": {one_line(view.status.reason)}" if view.status.reason else ""
        yield f"  state by receipts and attempts: {view.status.state}{why}"
    else:
        yield "  nothing of it in the state folder"


def _document(site: Site, view: RunView) -> Iterator[str]:
    document = view.database.document
    if not document:
        return
    for key in ("tags", "comments"):
        if words := words_of(document, key):
            yield f"  {key}: {'; '.join(words)}"
    for key in ("source", "user", "daq_config", "rate"):
        if value := document.get(key):
            yield f"  {key}: {_inline(value)}"
    part = campaign_part(document, site.campaign)
    for name, state in _mapping(part.get("products")).items():
        told = _mapping(state)
        words = [str(told[k]) for k in ("state", "step", "reason") if told.get(k)]
        yield f"  product {name}: {', '.join(map(one_line, words))}"
    if "token" in part:
        yield f"  fencing token: {part['token']}"


def _receipts(site: Site, view: RunView) -> Table:
    made = table("  receipt", "made (UTC)", "~what it says")
    folder = site.state.run(view.run)
    for one in view.receipts:
        name = f"  {one.path.relative_to(folder)}"
        if one.receipt is None:
            add(made, name, coloured("damaged"), one.problem)
        else:
            add(made, name, clock(one.receipt.made), "; ".join(_says(one.receipt)))
    return made


def _says(receipt: Receipt) -> Iterator[str]:
    if isinstance(receipt, RunFacts):
        yield f"{receipt.mode}, {span(receipt.seconds)}, {', '.join(receipt.detectors) or 'no detectors'}"
    elif isinstance(receipt, Transferred):
        rate = f", {receipt.bytes / 1e6 / receipt.seconds:.3g} MB/s" if receipt.seconds else ""
        yield f"{times(len(receipt.files), 'file')}, {size(receipt.bytes)} in {span(receipt.seconds)}{rate}"
        yield f"{receipt.algorithm}, from {receipt.source} to {receipt.folder} by {receipt.host}"
        if receipt.check:
            yield f"checked: {receipt.check.chunks} chunks, {receipt.check.records} records"
            yield from receipt.check.oddities
    elif isinstance(receipt, Processed):
        for name, target in receipt.targets.items():
            yield f"{name}: {target.folder}, {target.records} records in {target.chunks} chunks, {size(target.bytes)}"
        if receipt.records_in is not None:
            yield f"records in {receipt.records_in}, out {receipt.records_out}"
        cost = f"{span(receipt.cpu_seconds)} CPU, {receipt.peak_rss_mb:.0f} MB"
        yield f"{span(receipt.seconds)}, {cost} on {receipt.host}"
        if receipt.versions:
            yield ", ".join(f"{k} {v}" for k, v in receipt.versions.items())
        if receipt.adopted:
            yield f"adopted from {receipt.adopted}"
    elif isinstance(receipt, Checksums):
        yield f"{receipt.algorithm} of {times(len(receipt.files), 'file')} in {receipt.list_file}"
    elif isinstance(receipt, Stored):
        yield f"{size(receipt.bytes)} to {receipt.location} ({receipt.site}) in {span(receipt.seconds)}"
    elif isinstance(receipt, Registered):
        yield times(len(receipt.entries), "data entry", "data entries")
    elif isinstance(receipt, Released):
        yield f"freed {size(receipt.bytes) or 'nothing'}"
        yield from (f"dropped {what}: {why}" for what, why in receipt.dropped.items())
        yield from (f"kept {what}: {why}" for what, why in receipt.kept.items())


def _copies(view: RunView) -> Table:
    made = table("  place", "product", ">size", "there?", "folder", "~why")
    for copy in view.copies:
        add(made, f"  {copy.kind}", copy.product, size(copy.bytes), coloured(copy.there), copy.folder, copy.why)
    return made


def _entries(view: RunView) -> Table:
    made = table("  type", "host", ">size", "time (UTC)", "there?", "location")
    for entry in view.database.entries:
        there = f"deleted {clock(entry.deleted)}" if entry.deleted else entry.there or "not seen from here"
        mb = size(entry.size_mb * 1e6) if entry.size_mb else ""
        add(made, f"  {entry.type}", entry.host, mb, clock(entry.time), there, entry.location)
    return made


def _attempts(view: RunView, count: int) -> Table:
    made = table("  began", "product", "step", "how it ended", ">took", ">CPU", ">MB", "where", "~why, and its log")
    for a in view.attempts[-count:]:
        where = f"{a.owner.get('host')}{f' job {a.job_id}' if a.job_id else ''}"
        memory = f"{a.peak_rss_mb:.0f}" if a.peak_rss_mb else None
        why = f"{one_line(a.reason)} (log {a.log})" if a.reason else None
        add(
            made, f"  {clock(a.started)}", a.product, a.step, coloured(a.outcome or "open"),
            span(a.seconds), span(a.cpu_seconds), memory, where, why,
        )  # fmt: skip
    return made


def _as_json(view: RunView) -> dict[str, Any]:
    database = view.database
    return {
        "run": view.run,
        "known": view.known,
        "rundb_problem": database.problem,
        "row": database.row,
        "document": plain(database.document) or None,
        "entries": database.entries,
        "actions": database.actions,
        "why_not": database.why_not,
        "state": vars(view.status) | {"products": None, "attempts": None} if view.status else None,
        "receipts": [
            {
                "path": one.path,
                "product": one.product,
                "name": one.name,
                "problem": one.problem,
                "receipt": one.receipt.model_dump(mode="json") if one.receipt else None,
            }
            for one in view.receipts
        ],
        "copies": view.copies,
        "attempts": [a.model_dump(mode="json") for a in view.attempts],
        "logs": view.logs,
    }


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _inline(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(plain(value))
