"""Everything about one run, for its own page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from straxflow.attempts import Attempt, all_of
from straxflow.cli.site import Site
from straxflow.config import Config
from straxflow.dashboard.cells import columns, progress, receipt_path
from straxflow.dashboard.monitor import of_run
from straxflow.errors import StraxflowError
from straxflow.progress import chain_of
from straxflow.receipts import Checksums, Processed, Registered, Released, RunFacts, Stored, Transferred, now, read
from straxflow.reports.documents import text, time_of
from straxflow.reports.runview import InDatabase, in_database
from straxflow.rundb.client import Document, connect
from straxflow.rundb.gate import OPEN
from straxflow.rundb.whynot import why_not
from straxflow.settings import settings_digest

MOST_ATTEMPTS = 300
MOST_ENTRIES = 500
MOST_REMARKS = 100

Json = dict[str, Any]


def details(site: Site, run: str) -> Json | None:
    """What is known of a run; None if nobody knows it."""
    told, why, problem = _told(site, run)
    here = site.state.run(run).is_dir()
    if not (told.documents or here or problem):
        return None
    row = told.row
    facts = _facts(site, run) if here else None
    mode = facts.mode if facts else row.mode if row else None
    at_work = None if row is None else bool(row.claimant and row.claimant.alive)
    stands = progress(site.config, site.state, run, mode, at_work) if here else None
    return {
        "now": now(),
        "run": run,
        "here": here,
        "database": problem,
        "warning": told.problem if told.documents or not here else None,
        "row": row and asdict(row),
        "why_not": why,
        "facts": facts and _facts_told(facts),
        "progress": stands and asdict(stands),
        "columns": [asdict(c) for c in columns(site.config)],
        "receipts": list(_receipts(site, run, mode)) if here and mode else [],
        "monitor": [asdict(m) for m in of_run(site.config, site.state, run)] if here else [],
        "released": _released(site, run) if here else None,
        "attempts": list(islice(_attempts(site, run, told), MOST_ATTEMPTS)),
        "actions": [str(action) for action in told.actions[-MOST_REMARKS:]],
        "tags": list(_remarks(told.document, "tags", "name")),
        "comments": list(_remarks(told.document, "comments", "comment", "text")),
        "entries": [asdict(entry) for entry in told.entries[:MOST_ENTRIES]],
    }


def _told(site: Site, run: str) -> tuple[InDatabase, list[str], str | None]:
    """What the database tells of a run, why it is not claimed, and why the database does not tell."""
    try:
        with connect(site.config) as db:
            told = in_database(db, site.config, site.campaign, run)
            settled = told.row is None or told.row.state in ("working", "done")
            why = [] if settled else why_not(db, site.config, site.campaign, run, OPEN)
            return told, why, None
    except StraxflowError as error:
        return InDatabase(), [], str(error)


def _facts(site: Site, run: str) -> RunFacts | None:
    try:
        return site.state.facts(run)
    except (FileNotFoundError, StraxflowError):
        return None


def _facts_told(facts: RunFacts) -> Json:
    return facts.model_dump(include={"number", "start", "end", "mode", "detectors", "source"}) | {
        "seconds": facts.seconds
    }


def _receipts(site: Site, run: str, mode: str) -> Iterator[Json]:
    """What each step left, in the order of the chain."""
    config, state = site.config, site.state
    made = config.products_for(mode)
    for column in columns(config):
        if column.product in config.products and column.product not in made:
            continue
        for step, model in chain_of(config, column.product):
            path = receipt_path(state, run, column.product, model)
            if path.is_file():
                told: Json = {"product": column.product, "step": step, "receipt": str(path.relative_to(state.folder))}
                try:
                    told |= _content(config, path, column.product, step)
                except (StraxflowError, OSError) as error:
                    told["problem"] = str(error)
                yield told


def _content(config: Config, path: Path, product: str, step: str) -> Json:
    if step == "transfer":
        live = read(path, Transferred)
        told: Json = {"made": live.made, "seconds": live.seconds, "bytes": live.bytes, "files": len(live.files)}
        if live.check:
            told |= {"records": live.check.records, "chunks": live.check.chunks, "notes": live.check.oddities[:20]}
        return told
    if step == "process":
        made = read(path, Processed)
        notes = []
        if made.records_in is not None and made.records_out is not None and made.records_out < made.records_in:
            lost = made.records_in - made.records_out
            notes.append(f"{lost} of {made.records_in} records dropped as dead time ({made.dead_time_ns / 1e9:.3g} s)")
        if made.settings != settings_digest(config, product):
            notes.append("outdated: the configuration would make it otherwise today")
        if made.adopted:
            notes.append(f"found made already: {made.adopted}")
        return {
            "made": made.made,
            "seconds": made.seconds,
            "bytes": made.bytes,
            "files": sum(t.files for t in made.targets.values()),
            "records": sum(t.records for t in made.targets.values()),
            "chunks": sum(t.chunks for t in made.targets.values()),
            "host": made.host,
            "versions": dict(islice(made.versions.items(), 20)),
            "notes": notes,
        }
    if step == "checksum":
        sums = read(path, Checksums)
        return {"made": sums.made, "seconds": sums.seconds, "files": len(sums.files), "notes": [sums.algorithm]}
    if step == "move_out":
        stored = read(path, Stored)
        return {
            "made": stored.made,
            "seconds": stored.seconds,
            "bytes": stored.bytes,
            "notes": [f"{stored.location}/{folder}" for folder in stored.folders[:20]],
        }
    if step in ("register", "register_live"):
        return {"made": read(path, Registered).made}
    return {"made": read(path, Released).made}


def _released(site: Site, run: str) -> Json | None:
    try:
        receipt = read(site.state.released(run), Released)
    except (FileNotFoundError, StraxflowError):
        return None
    return receipt.model_dump(include={"made", "dropped", "kept", "bytes"})


def _attempts(site: Site, run: str, told: InDatabase) -> Iterator[Json]:
    """All attempts, newest first; those that only the database knows (of other sites, too) have no log here."""
    here = list(all_of(site.state, run))
    known = {_mark(file.attempt) for file in here}
    found: list[tuple[str | None, Attempt]] = [(file.path.stem, file.attempt) for file in here]
    found += [(None, a) for a in told.attempts if _mark(a) not in known]
    for name, attempt in sorted(found, key=lambda pair: pair[1].started, reverse=True):
        fields = attempt.model_dump(exclude={"run", "owner", "own_peak_rss_mb"})
        yield fields | {"name": name, "host": text(attempt.owner.get("host")), "pid": attempt.owner.get("pid")}


def _mark(attempt: Attempt) -> tuple[str, str, int]:
    # the database keeps milliseconds
    return attempt.product, attempt.step, int(attempt.started.timestamp() * 1000)


def _remarks(document: Document, field: str, *names: str) -> Iterator[Json]:
    """Tags or comments: what, by whom, when."""
    found = document.get(field)
    for one in (found if isinstance(found, list) else [])[-MOST_REMARKS:]:
        if isinstance(one, Mapping):
            words = next((w for name in names if (w := text(one.get(name)))), None)
            if words:
                yield {"text": words, "user": text(one.get("user")), "date": time_of(one.get("date"))}
