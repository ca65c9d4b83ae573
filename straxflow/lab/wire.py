"""What is asked of a run database, counted on the wire."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import bson
from pymongo import MongoClient, monitoring

from straxflow.config import Config
from straxflow.rundb.client import Document, RunDb, connect

NOT_COUNTED = ("killCursors", "isMaster")
"""Cursors are closed when it pleases the client, the server's clock is asked once a second."""


class Wire(monitoring.CommandListener):
    """Counts commands, and the documents and bytes of their answers."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.documents = self.bytes = 0

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """A command was sent."""
        if event.command_name not in NOT_COUNTED:
            self.commands.append(event.command_name)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """An answer has come."""
        if event.command_name not in NOT_COUNTED:
            cursor = event.reply.get("cursor", {})
            self.documents += len(cursor.get("firstBatch", cursor.get("nextBatch", [])))
            self.bytes += len(bson.encode(event.reply))

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """An error has come."""
        self.commands.append(f"failed {event.command_name}")


@contextmanager
def counted(config: Config) -> Iterator[tuple[RunDb, Wire]]:
    """A connection to a server without a password, whose commands are counted."""
    wire = Wire()
    with connect(config) as usual, MongoClient[Document](config.rundb.uri, event_listeners=[wire]) as client:
        database = client[usual.runs.database.name]
        yield RunDb(client, database.get_collection(usual.runs.name, codec_options=usual.runs.codec_options)), wire
