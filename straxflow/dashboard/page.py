"""The page's data, put together from its parts: what the browser gets, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any

from straxflow.cli.site import Site
from straxflow.dashboard import monitor
from straxflow.dashboard.cells import Progress, Watched, columns
from straxflow.dashboard.database import MOST_FAILURES, DatabaseView, look, rows
from straxflow.dashboard.monitor import Monitored
from straxflow.dashboard.parts import Part, Parts, Reading
from straxflow.dashboard.run import details
from straxflow.dashboard.throughput import Ledger, Throughput
from straxflow.errors import StraxflowError
from straxflow.folders import marker_site
from straxflow.fsio import check_marker
from straxflow.receipts import now
from straxflow.reports import disks
from straxflow.reports.documents import RunRow
from straxflow.reports.runtable import Choice, from_state
from straxflow.rundb.client import connect
from straxflow.rundb.gate import OPEN, Gate
from straxflow.rundb.gate import look as look_at_gate
from straxflow.rundb.tunnel import Tunnel

SLOW_S = 30.0
"""How often disks and the throughput are looked at, seconds; a remote store ten times less often."""
MOST_LISTS, MOST_RUNS = 12, 30
"""Lists by state and mode, and pages of runs, that are kept at once."""
AS_IN_DOCUMENTS = {"reached": "done", "damaged": "failed", "misconfigured": "failed", "incomplete": "failed"}
"""States that only receipts tell, as the run documents have them."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Runs with their progress."""

    rows: Sequence[RunRow] = ()
    progress: dict[str, Progress] = field(default_factory=dict)


class Page:
    """Everything that the status page shows of a site; reads only, and only while somebody looks."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.config = site.config
        self.state = site.state
        self._every_s = every_s = self.config.dashboard.refresh_s / 2
        self._tunnel: Tunnel | None = None
        self._lists: Parts[tuple[str | None, str | None], Table] = Parts(self._make_list, MOST_LISTS)
        self._runs: Parts[str, Json | None] = Parts(self._make_run, MOST_RUNS)
        here = self.config, self.state
        self._folder: Part[str | None] = Part(self._folder_problem, None, every_s)
        self._database = Part(self._look, DatabaseView(), every_s, self.config.rundb.timeout_s + 1)
        self._failed = Part(partial(self._failures, Watched(*here)), Table(), every_s)
        self._throughput = Part(Ledger(*here).read, Throughput(), SLOW_S)
        self._disks: Part[list[disks.Disk]] = Part(partial(disks.local, *here), [], SLOW_S)
        self._remote: Part[list[disks.Disk]] = Part(partial(disks.remote, self.config), [], 10 * SLOW_S, patience_s=0)
        self._gate = Part(self._look_at_gate, OPEN, every_s)
        self._monitored: Part[list[Monitored]] = Part(self._monitor, [], every_s)

    def close(self) -> None:
        """Close the tunnel to the run database, if there is one."""
        if self._tunnel:
            self._tunnel.close()

    def overview(self) -> Json:
        """Everything but the table of runs."""
        database = self._database.get()
        failures = self._failed.get()
        throughput = self._throughput.get()
        folder = self._folder.get()
        view = database.value
        places = self._disks.get().value + (self._remote.get().value if self.config.store.ssh else [])
        return {
            "now": now(),
            "site": self.config.site,
            "experiment": self.config.experiment,
            "campaign": self.site.campaign,
            "refresh_s": self.config.dashboard.refresh_s,
            "state_folder": folder.value or folder.problem,
            "database": _told(database),
            "switch": view.switch and asdict(view.switch),
            "held": self._held(view),
            "counts": dict(view.counts),
            "oldest": view.oldest and asdict(view.oldest),
            "due": dict(view.due),
            "watchers": [asdict(w) for w in view.watchers],
            "invocations": [asdict(i) for i in view.invocations],
            "failures": _table(failures.value),
            "throughput": {**_told(throughput), **asdict(throughput.value)},
            "disks": [asdict(d) for d in places],
            "monitor": [asdict(m) for m in self._monitored.get().value],
        }

    def plot(self, run: str, product: str) -> tuple[str, bytes] | None:
        """Kind and content of the plot of a product."""
        if found := monitor.plot_here(self.config, self.state, run, product):
            return found
        try:
            with connect(self.config) as db:
                return monitor.plot_told(db, self.site.campaign, run, product)
        except StraxflowError:
            return None

    def runs(self, state: str | None, mode: str | None) -> Json:
        """The table of runs, newest first."""
        table = self._lists.get((state, mode))
        return {
            "now": now(),
            **_told(table),
            "limit": self.config.dashboard.runs,
            "columns": [asdict(c) for c in columns(self.config)],
            **_table(table.value),
        }

    def run(self, run: str) -> Reading[Json | None]:
        """Everything about a run; its value is None if nobody knows it, or while it is being read."""
        return self._runs.get(run)

    def _look(self) -> DatabaseView:
        self._open_tunnel()
        with connect(self.config) as db:
            return look(db, self.config, self.site.campaign)

    def _look_at_gate(self) -> Gate:
        with connect(self.config) as db:
            return look_at_gate(db, self.config, self.site.campaign)

    def _held(self, view: DatabaseView) -> list[str]:
        """Why no run, or not every run, is claimed at present."""
        gate = self._gate.get()
        if gate.made is None and view.switch and not view.switch.on:
            return [view.switch.text]
        return gate.value.held()

    def _monitor(self) -> list[Monitored]:
        if self._database.get().problem:
            return monitor.here(self.config, self.state)
        with connect(self.config) as db:
            return monitor.told(db, self.config, self.site.campaign)

    def _open_tunnel(self) -> None:
        """Open one tunnel for the life of the page; it watches itself."""
        settings = self.config.rundb.tunnel
        if settings and self._tunnel is None:
            tunnel = Tunnel(settings, self.config.rundb.timeout_s)
            tunnel.open()
            tunnel.share()
            self._tunnel = tunnel

    def _make_list(self, key: tuple[str | None, str | None]) -> Part[Table]:
        return Part(partial(self._list, *key, Watched(self.config, self.state)), Table(), self._every_s)

    def _make_run(self, run: str) -> Part[Json | None]:
        return Part(partial(details, self.site, run), None, self._every_s)

    def _list(self, state: str | None, mode: str | None, watched: Watched) -> Table:
        database = self._database.get()
        if database.problem:
            found = self._rows_here(state, mode)
        elif state is None and mode is None:
            found = list(database.value.newest)
        else:
            with connect(self.config) as db:
                choice = Choice(state, (mode,) if mode else ())
                found = rows(db, self.config, self.site.campaign, choice, self.config.dashboard.runs)
        return self._with_progress(found, watched, database)

    def _failures(self, watched: Watched) -> Table:
        database = self._database.get()
        found = database.value.failures
        if database.problem:
            found = self._rows_here("failed", None)
        return self._with_progress(found[:MOST_FAILURES], watched, database)

    def _with_progress(self, found: Sequence[RunRow], watched: Watched, database: Reading[DatabaseView]) -> Table:
        if self._folder_problem():
            return Table(found)
        held = None if database.problem else database.value.held
        here = {
            row.run: (row.mode or None, None if held is None else held.get(row.run, False))
            for row in found
            if row.run and self.state.run(row.run).is_dir()
        }
        return Table(found, watched.of(here))

    def _rows_here(self, state: str | None, mode: str | None) -> list[RunRow]:
        """Of the newest runs that the state folder knows those that are asked for, for want of the database."""
        newest = islice(from_state(self.config, self.state, Choice()), self.config.dashboard.runs)
        told = [replace(row, state=AS_IN_DOCUMENTS.get(row.state, row.state)) for row in newest]
        return [row for row in told if state in (None, row.state) and mode in (None, row.mode)]

    def _folder_problem(self) -> str | None:
        try:
            check_marker(self.state.folder, "state", marker_site(self.config, "state", self.state))
        except (StraxflowError, OSError) as error:
            return str(error)
        return None


def _told(reading: Reading[Any]) -> dict[str, datetime | str | None]:
    return {"made": reading.made, "problem": reading.problem}


def _table(table: Table) -> Json:
    return {
        "runs": [
            asdict(row) | {"progress": asdict(table.progress[row.run]) if row.run in table.progress else None}
            for row in table.rows
        ]
    }
