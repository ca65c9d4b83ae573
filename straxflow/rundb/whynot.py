"""Why a run is not claimed: every reason in words, for the commands that show it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from straxflow.config import LIVE, Config
from straxflow.plan import available
from straxflow.receipts import State
from straxflow.rundb.asked import person_asks
from straxflow.rundb.client import Document, RunDb
from straxflow.rundb.gate import Gate, look
from straxflow.rundb.lapse import claim_lapsed
from straxflow.rundb.rundoc import ONLINE, Malformed, Run, parse, query_for, status_holder
from straxflow.rundb.selection import Selection
from straxflow.settings import failure_settings


def why_not(db: RunDb, config: Config, campaign: str, run_id: str, gate: Gate | None = None) -> list[str]:
    """Why the next invocation would not claim a run; empty if it would, when its turn comes.

    What holds up all runs (`gate`, looked at unless given) comes last. Two small queries, and those of the gate.
    """
    return why_none(db, config, campaign, [run_id], gate)[run_id]


def why_none(
    db: RunDb, config: Config, campaign: str, run_ids: Sequence[str], gate: Gate | None = None
) -> dict[str, list[str]]:
    """The same of several runs, with as many queries: some hundred at most, or the query grows too long."""
    found: dict[str, list[str]] = {}
    queries: dict[str, Document] = {}
    for run_id in run_ids:
        try:
            queries[run_id] = query_for(run_id, config)
        except Malformed as error:
            found[run_id] = [str(error)]
    if not queries:
        return found
    documents: dict[str, list[Document]] = {run_id: [] for run_id in queries}
    for document in db.runs.find({"$or": list(queries.values())}, {"deleted_data": 0}):
        for run_id, query in queries.items():
            if all(document.get(name) == value for name, value in query.items()):
                documents[run_id].append(document)
    gate = gate or look(db, config, campaign)
    selection = Selection(config, campaign, db.now(), gate)
    for run_id, same in documents.items():
        if len(same) == 1:
            found[run_id] = [*reasons(same[0], selection), *gate.shut]
        elif same:
            found[run_id] = ["two run documents have its number; remove the wrong one"]
        else:
            found[run_id] = [f"there is no run document of it in {db.runs.full_name}"]
    return found


def reasons(document: Document, selection: Selection) -> list[str]:
    """What forbids to claim the run of a document now."""
    config, campaign = selection.config, selection.campaign
    if document.get("end") is None:
        return ["it has no end: it is being taken, or the DAQ crashed"]
    try:
        run = parse(document, config, campaign)
    except Malformed as error:
        return [str(error)]
    found = [*selection.against(run), *_state_against(run, selection)]
    if not available(config, State(config.folders.state / campaign), run.id):
        found.append("its live data has not come yet, and this site does not transfer")
    return found


def _state_against(run: Run, selection: Selection) -> Iterator[str]:
    config, campaign = selection.config, selection.campaign
    part = run.campaign(campaign)
    claim = part.get("claim")
    if isinstance(claim, Mapping) and isinstance(claim.get("batch"), str):
        if not claim_lapsed(claim, selection.now, config.claim.lease_s):
            owner = claim.get("owner") or {}
            yield f"invocation {claim['batch']} works on it (host {owner.get('host')}, pid {owner.get('pid')})"
        return
    status, value = run.status, status_holder(run.document, campaign, config).get("processing_status")
    reason = value.get("reason") if isinstance(value, Mapping) else None
    told = f": {reason}" if reason else ""
    if status == "pending":
        until = part.get("wait_until")
        if reason == selection.reached:
            yield f"this site's steps are done ({reason})"
        elif isinstance(until, datetime) and _aware(until) > selection.now and not person_asks(run, config, campaign):
            yield f"it waits until {_aware(until):%F %T} UTC{told}"
    elif status == "failed":
        if "settings" in part and part["settings"] != failure_settings(config):
            return
        due, failures, most = part.get("due"), part.get("failures"), config.failures.give_up_after
        if isinstance(failures, (int, float)) and failures >= most:
            yield f"{failures} failures (failures.give_up_after is {most}){told}; set it to pending to try again"
        elif not isinstance(due, datetime) or not isinstance(failures, (int, float)):
            yield f"failed, and not tried again by itself{told}; set it to pending to try again"
        elif _aware(due) > selection.now:
            yield f"failed, in back-off until {_aware(due):%F %T} UTC{told}"
    elif status is not None:
        yield f"its state is {status}{told}"
    elif value is not None:
        yield f"its state cannot be read: {value!r}"
    elif campaign != ONLINE:
        yield f"campaign {campaign} has no state for it; set it to pending"
    else:
        yield from _untouched(run, selection)


def _untouched(run: Run, selection: Selection) -> Iterator[str]:
    config = selection.config
    shadowed = config.shadow
    if shadowed.enabled and "*" not in shadowed.states:
        theirs = run.document.get("processing_status")
        theirs = theirs.get("status") if isinstance(theirs, Mapping) else theirs
        if theirs not in shadowed.states:
            yield f"the older tool left it {theirs or 'without a state'}, which is not in shadow.states"
    host = config.daq.host
    entries = run.document.get("data")
    at_daq = isinstance(entries, list) and any(
        isinstance(entry, Mapping) and entry.get("host") == host and entry.get("type") == LIVE for entry in entries
    )
    if not at_daq and not selection.forced(run):
        yield f"it has no state, and no live data of it are registered at {host}; set it to pending"


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
