"""Checks of what holds up claims: the switch, a DAQ that takes data, the cap on runs at work, tags."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from straxflow.cli.site import Site
from straxflow.config import Config
from straxflow.reports.verdict import Verdict, ok, warning
from straxflow.rundb.client import RunDb
from straxflow.rundb.gate import at_work, being_taken
from straxflow.rundb.selection import tagged
from straxflow.rundb.switch import read_switch

LEVELS = {
    "work": "everything is worked on",
    "transfer": "only live data is brought in",
    "nothing": "nothing is claimed",
}
COMMON = 20


def verdicts(db: RunDb, site: Site) -> Iterator[Verdict]:
    """What holds up claims, or could; disks have checks of their own."""
    config = site.config
    switch = read_switch(db, config)
    yield ok("switch", switch.text) if switch.on else warning("switch", switch.text)
    yield _live(db, config)
    most = config.claim.max_jobs
    if most is not None:
        busy = at_work(db, config, most)
        text = f"{busy}{' or more' if busy > most else ''} of at most {most} (claim.max_jobs)"
        yield ok("runs at work", text) if busy < most else warning("runs at work", f"{text}: no more are claimed")
    yield from _tags(db, config)


def _live(db: RunDb, config: Config) -> Verdict:
    level = config.daq.while_live
    if level == "work":
        return ok("DAQ", "whether it takes data makes no difference (daq.while_live: work)")
    live = being_taken(db, config)
    what = LEVELS[level]
    return ok(
        "DAQ", f"{live}: {what}, but for runs with the tag `process`" if live else f"no run is being taken: {what}"
    )


def _tags(db: RunDb, config: Config) -> Iterator[Verdict]:
    counts, known = [], set[str]()
    for meaning, names in config.runs.tags:
        known |= {*names}
        runs = db.runs.count_documents(tagged(names)) if names else 0
        counts.append(f"{meaning}: {', '.join(names) or 'none'} ({runs} run{'s' * (runs != 1)})")
    yield ok("tags", "; ".join(counts))
    for name in sorted(t for t in db.runs.distinct("tags.name") if isinstance(t, str) and t not in known):
        close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.8)
        runs = db.runs.count_documents({"tags.name": name}, limit=COMMON) if close else 0
        # a tag that many runs carry has a meaning of its own
        if 0 < runs < COMMON:
            text = f"{runs} run{'s have' if runs != 1 else ' has'} the tag {name!r}, which means nothing here"
            yield warning("tags", text, f"did you mean {close[0]!r}? Correct the tag, or add it to runs.tags")
