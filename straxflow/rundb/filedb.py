"""Documents in one file on the shared disk, for sites without a run database, with the interface of pymongo.

SQLite keeps the documents as JSON: it has the atomic, durable writes and the locks between processes. What a query or
an update means is told by mongomock, over the documents in memory, which are read again where the file has changed.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bson.codec_options import CodecOptions

from straxflow.errors import RunDbError
from straxflow.fsio import fsync_path, incoming_name, rename_noreplace
from straxflow.rundb.filecollection import FileCollection

NAME = "runs.sqlite"
_VERSION = 1
_WAIT_S = 30
_TABLE = """
create table documents(
    collection text not null, id text not null, seq integer not null, number integer, json text,
    primary key (collection, id)
) without rowid;
create index by_seq on documents(collection, seq);
create index by_number on documents(collection, number);
"""

Document = dict[str, Any]


class FileDb:
    """The file, and what this process knows of it; threads may share it."""

    name = "folders"

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lock = threading.RLock()
        self._collections: dict[str, FileCollection] = {}

    @staticmethod
    def create(file: Path) -> bool:
        """Make the file if it is not there; whether it was made."""
        if file.exists():
            return False
        temp = file.with_name(incoming_name(file.name))
        # not by SQLite, which heeds no umask that lets a group write
        with temp.open("xb"):
            pass
        connection = sqlite3.connect(temp)
        try:
            connection.executescript(f"{_TABLE} pragma user_version = {_VERSION};")
        finally:
            connection.close()
        fsync_path(temp)
        try:
            rename_noreplace(temp, file)
        except FileExistsError:
            temp.unlink()
            return False
        fsync_path(file.parent)
        return True

    def get_collection(self, name: str, codec_options: CodecOptions[Document] | None = None) -> FileCollection:
        """A collection, made when it is first written to."""
        with self.lock:
            return self._collections.setdefault(name, FileCollection(self, name))

    __getitem__ = get_collection

    def list_collection_names(self) -> list[str]:
        """Names of all collections that hold something."""
        with self.reading() as connection:
            rows = connection.execute("select distinct collection from documents where json is not null")
            return sorted(name for (name,) in rows)

    def command(self, name: str) -> Document:
        """As the database's `ping`."""
        with self.reading():
            return {"ok": 1.0}

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The file as it stands now."""
        with self._transaction("begin") as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The file while nobody else writes to it; an error in the block undoes all."""
        with self._transaction("begin immediate") as connection:
            yield connection

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        # made each time: a connection must not pass a fork, and on NFS an opened file is a fresh one
        try:
            connection = sqlite3.connect(
                f"{self.file.as_uri()}?mode=rw", uri=True, timeout=_WAIT_S, isolation_level=None
            )
        except sqlite3.Error as error:
            raise self._explained(error) from error
        try:
            # the journal stays: another host must not overlook a new one in its cache of names
            connection.execute("pragma journal_mode = persist")
            connection.execute("pragma synchronous = full")
            connection.execute(begin)
            (version,) = connection.execute("pragma user_version").fetchone()
            if version != _VERSION:
                raise RunDbError(f"{self.file}: is of version {version}, this straxflow knows {_VERSION}")
            yield connection
            connection.execute("commit")
        except sqlite3.Error as error:
            raise self._explained(error) from error
        finally:
            # what was not committed is undone
            connection.close()

    def _explained(self, error: sqlite3.Error) -> RunDbError:
        if not self.file.exists():
            return RunDbError(f"{self.file}: there is no such file: is the disk mounted? straxflow init makes it")
        return RunDbError(f"{self.file}: {error}; check the disk, and that it has locks between hosts")
