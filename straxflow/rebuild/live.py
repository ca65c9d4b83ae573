"""The receipts of a run's live data: from the copy here, or, where that was dropped on purpose, from its entry."""

from __future__ import annotations

from straxflow.config import LIVE, Config
from straxflow.daqfolder import run_place
from straxflow.digests import hash_tree
from straxflow.errors import Damaged, StraxflowError
from straxflow.livedata import check_live_data, is_complete
from straxflow.livedata.partial import made_in
from straxflow.rebuild.evidence import Evidence
from straxflow.rebuild.files import Receipts
from straxflow.receipts import LiveFacts, Registered, Transferred
from straxflow.rundb.client import Document
from straxflow.rundb.entries import jsonable
from straxflow.rundb.rundoc import Run
from straxflow.steps.transfer import as_facts, expectation


def rebuild_live(config: Config, evidence: Evidence, run: Run, receipts: Receipts) -> LiveFacts | None:
    """Make the receipts of the live data that are missing; what their check found, as far as they are here."""
    lacking = receipts.lacking()
    here = [config.site]
    entries = evidence.entries(run, LIVE, here)
    dropped = evidence.deleted(run, LIVE, here)
    if evidence.any_tool and not entries and not dropped:
        # another tool need not have brought the live data here before it processed them
        dropped = evidence.deleted(run, LIVE, None) or evidence.entries(run, LIVE, None)
    if Transferred in lacking:
        try:
            receipts.make(_transferred(config, run, entries, dropped))
        except (StraxflowError, OSError) as error:
            receipts.problem(str(error))
    received = receipts.find(Transferred)
    if Registered in lacking and received:
        told = [e for e in entries if str(e.get("location")) == str(config.folders.live)] or entries or dropped
        if told:
            entry = [jsonable(told[0])]
            receipts.make(Registered(run=run.id, product=LIVE, entries=entry, rebuilt="the run document"))
        else:
            receipts.problem("has no entry in the run document: register_live writes it")
    return received.check if received else None


def _transferred(config: Config, run: Run, entries: list[Document], dropped: list[Document]) -> Transferred:
    folder = config.folders.live / run.id
    source = str(run_place(config, run.facts))
    if folder.is_dir():
        threads = run.facts.daq_config.get("processing_threads")
        if config.transfer.check and not is_complete(folder, threads):
            raise Damaged(f"{folder} is not complete (no whole THE_END, or _temp folders)")
        manifest = hash_tree(folder, cold=True)
        check = None
        if config.transfer.check:
            check = as_facts(check_live_data(folder, expectation(run.facts, config.transfer.length_tolerance_s)))
        for entry in entries:
            if entry.get("by") == "straxflow" and entry.get("file_count") not in (None, len(manifest.files)):
                raise Damaged(f"{folder} has {len(manifest.files)} files, its entry says {entry['file_count']}")
        return Transferred(
            run=run.id,
            folder=str(folder),
            source=source,
            host="unknown",
            algorithm=manifest.algorithm,
            files=manifest.rows,
            bytes=manifest.bytes,
            seconds=0,
            check=check,
            made_here=made_in(manifest.by_path, run.facts.partial.chunks) if run.facts.partial else None,
            rebuilt="the check of its format" if check else "its name alone (transfer.check is false)",
        )
    if not dropped:
        says = "though its entry says that they are here" if entries else "and no entry says that they were"
        raise Damaged(f"{folder}: there are no live data here, {says}; the workflow brings them again")
    size = dropped[0].get("size_mb")
    return Transferred(
        run=run.id,
        folder=str(folder),
        source=source,
        host="unknown",
        algorithm="xxh128",
        # an empty manifest proves nothing: no later step can drop a copy on the strength of this receipt
        files=[],
        bytes=int(size * 1e6) if isinstance(size, (int, float)) else 0,
        seconds=0,
        rebuilt="the run document: the live data were here and were dropped; nothing is known of the files",
    )
