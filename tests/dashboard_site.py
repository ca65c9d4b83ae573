"""A small site with a run in each state, for the tests of the status page; and a door to its run database."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from straxflow.cli.site import Site
from straxflow.config import load
from straxflow.folders import init_folders
from straxflow.lab.history import History
from straxflow.lab.rundb_server import RunDbServer
from straxflow.receipts import now
from straxflow.rundb.client import connect

EVIL = "<img src=x onerror=window.pwned=1><script>window.pwned=1</script>'\"&{{7*7}}</td>"
SVG = '<svg xmlns="http://www.w3.org/2000/svg"><script>window.pwned=1</script><rect width="9" height="9"/></svg>'
LOG = f"\x1b[31mred\x1b[0m {EVIL}\nthe last word\n"

_databases = itertools.count()


class Door:
    """A port in front of the run database that can be shut."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.is_open = True
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def shut(self) -> None:
        """Cut all connections, and take no new ones."""
        self.is_open = False
        while self._ends:
            with contextlib.suppress(OSError):
                self._ends.pop().shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """For good."""
        self.shut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                one, _ = self._listener.accept()
            except OSError:
                return
            if not self.is_open:
                one.close()
                continue
            other = socket.create_connection(("127.0.0.1", self._target))
            self._ends += [one, other]
            for source, target in ((one, other), (other, one)):
                threading.Thread(target=self._copy, args=(source, target), daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class PageSite:
    """The site, its history and the door to its database."""

    def __init__(self, folder: Path, rundb: RunDbServer) -> None:
        self.door = Door(int(rundb.uri.rstrip("/").rpartition(":")[2]))
        self.database = f"page_{os.getpid()}_{next(_databases)}"
        self.folder = folder
        self.settings = {
            "site": "here",
            "folders": {name: str(folder / name) for name in ("state", "live", "staging")},
            "store": {"folder": str(folder / "store"), "min_free_gb": 0},
            "rundb": {"uri": f"mongodb://127.0.0.1:{self.door.port}/", "database": self.database, "timeout_s": 1},
            "daq": {"host": "daq", "folder": str(folder)},
            "runs": {"min_run_number": 100},
            "products": {
                "raw_records": {"from": "live"},
                "events": {"from": "raw_records", "modes": {"exclude": ["led"]}},
            },
            "dashboard": {"refresh_s": 1},
        }
        self.site = Site(load(self.settings), "online", "none", "site.yaml")
        init_folders(self.site.config, self.site.state)
        self.client: MongoClient[dict[str, Any]] = MongoClient(rundb.uri, tz_aware=True)
        self.runs = self.client[self.database]["runs"]
        self.history = History(self.site.config, self.site.state, self.runs)
        self._fill()

    def close(self) -> None:
        """Drop the database."""
        self.client.drop_database(self.database)
        self.client.close()
        self.door.close()

    def set_status(self, number: int, status: str, reason: str | None = None) -> None:
        """Write a run's state, as a person or another tool does."""
        told = {"status": status, "time": now(), "host": "elsewhere", "reason": reason}
        self.runs.update_one({"number": number}, {"$set": {"processing_status": told}})

    def _fill(self) -> None:
        history, moment = self.history, now()
        ended = moment - timedelta(minutes=30)
        words = [{"name": EVIL, "user": EVIL, "date": ended}]
        comments = [{"text": EVIL, "user": "ana", "date": ended}]
        run = history.run(101, "background", ended, "done", tags=words, comments=comments)
        history.facts(run, 101)
        history.chain(run, ended)
        with connect(self.site.config) as db:
            history.summary(db, run, "events", {"events": 12, EVIL[:50]: 1.5}, SVG)
            db.ours("watchers").insert_one(
                {"site": "here", "campaign": "online", "owner": history.owner.as_dict(), "renewed": moment}
            )
        run = history.run(102, "led", ended, "done")
        history.facts(run, 102)
        history.chain(run, ended)
        run = history.run(103, "background", ended)
        history.facts(run, 103)
        at = history.chain(run, ended, 2)
        history.step(run, "raw_records", "process", at, "failed", EVIL, LOG)
        self.set_status(103, "failed", EVIL)
        due = {"straxflow.online.failures": 2, "straxflow.online.due": moment + timedelta(minutes=10)}
        self.runs.update_one({"number": 103}, {"$set": due})
        history.run(104, "background", ended, "pending")
        history.run(105, "background", ended, "pending")
        wait = {"straxflow.online.wait_until": moment + timedelta(hours=2)}
        self.runs.update_one({"number": 105}, {"$set": wait})
        history.run(106, "background", ended, "pending", tags=[{"name": "hold-processing"}])
        run = history.run(107, "background", ended)
        history.facts(run, 107)
        history.claim(107, run, "20260101T000000-abcd", moment)
        history.chain(run, moment - timedelta(minutes=5), 2)
        history.step(run, "raw_records", "process", moment, None)
        self.runs.insert_one({"number": 108, "start": moment, "mode": "background"})
        history.run(109, "led", ended, "pending")
        self.runs.update_one({"number": 109}, {"$set": {"mode": EVIL}})
        # documents as nobody should write them
        self.runs.insert_many(
            [
                {"number": 110, "start": "yesterday", "end": 7, "mode": ["x"], "tags": "none", "straxflow": 3},
                {"number": 111, "processing_status": {"status": {"$ne": 1}, "reason": ["x"]}, "comments": {"a": 1}},
                {"number": 1, "mode": "below the minimum", "processing_status": "pending"},
                {"number": "x", "mode": "no number"},
            ]
        )


def page_site(folder: Path, rundb: RunDbServer) -> Iterator[PageSite]:
    """For a fixture."""
    site = PageSite(folder, rundb)
    yield site
    site.close()
