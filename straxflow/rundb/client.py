"""Connection to the run database: secrets, time-outs, the optional tunnel, errors in the user's words."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from bson.codec_options import CodecOptions, DatetimeConversion
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import (
    ConnectionFailure,
    OperationFailure,
    PyMongoError,
)
from pymongo.synchronous import monitor

from straxflow.config import Config
from straxflow.errors import ConfigError, RunDbAway, RunDbError
from straxflow.rundb.tunnel import Tunnel, shared_port

Document = dict[str, Any]

CLOCK_S = 60.0
"""How long this machine's clock may stand for the database's, seconds, where nothing is decided by it."""

# each of our clients is closed by who opened it; the threads that watched its server may still nap for half a second,
# and pymongo would keep every command that long at its end
atexit.unregister(monitor._shutdown_resources)


@dataclass
class RunDb:
    """An open connection to the collection of run documents (no `client` where they stand in a file). Times are
    UTC-aware.
    """

    client: MongoClient[Document] | None
    runs: Collection[Document]
    _asked: tuple[float, datetime] | None = field(default=None, repr=False, compare=False)

    def ours(self, name: str) -> Collection[Document]:
        """A collection of straxflow's own, beside that of the run documents: `straxflow_<name>`."""
        return self.runs.database.get_collection(f"straxflow_{name}", codec_options=self.runs.codec_options)

    def database(self, name: str | None) -> Database[Document]:
        """Another database of the same server; the one of the run documents if there is no name, or no server."""
        return self.client[name] if name and self.client is not None else self.runs.database

    def now(self) -> datetime:
        """The database's clock, by which leases are judged; to the millisecond, as documents hold times."""
        if self.client is None:
            here = datetime.now(UTC)
            return here.replace(microsecond=here.microsecond // 1000 * 1000)
        # the older name of `hello`, which every server answers
        reply = self.client.admin.command("isMaster")
        moment: datetime = reply["localTime"]
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        self._asked = (time.monotonic(), moment)
        return moment

    def about_now(self) -> datetime:
        """The same, by this machine's time since the database was last asked; for who only looks whether to act."""
        if self._asked is not None:
            since = time.monotonic() - self._asked[0]
            if since < CLOCK_S:
                return self._asked[1] + timedelta(milliseconds=int(1000 * since))
        return self.now()


@contextmanager
def connect(config: Config) -> Iterator[RunDb]:
    """Connect to the run database, through the tunnel if there is one, or to the file that stands for it.

    Raises:
        RunDbError: if it is away, refuses, or fails while it is used.
        ConfigError: if the password file is missing or open to others.
    """
    settings = config.rundb
    if settings.kind == "folders":
        # what it needs is imported by those who use it
        from straxflow.rundb.folders import open_runs

        yield RunDb(None, open_runs(config))
        return
    port = shared_port() if settings.tunnel else None
    tunnel = Tunnel(settings.tunnel, settings.timeout_s) if settings.tunnel and not port else None
    uri = settings.uri
    try:
        options: dict[str, Any] = {}
        if tunnel:
            tunnel.open()
            port = tunnel.port
        if port:
            options |= {"host": "127.0.0.1", "port": port, "directConnection": True}
        else:
            options["host"] = uri
        if settings.user:
            options |= {"username": settings.user, "password": password(config)}
            if settings.auth_source:
                options["authSource"] = settings.auth_source
        milliseconds = int(settings.timeout_s * 1000)
        try:
            client: MongoClient[Document] = MongoClient(
                **options,
                serverSelectionTimeoutMS=milliseconds,
                connectTimeoutMS=milliseconds,
                socketTimeoutMS=max(4 * milliseconds, 20_000),
                appname=f"straxflow-{config.site}",
            )
        except (ValueError, TypeError) as error:
            raise ConfigError(f"rundb.uri: {first_line(error)} (found {uri!r})") from None
        with client:
            codec: CodecOptions[Document] = CodecOptions(
                tz_aware=True,
                tzinfo=UTC,
                # a date beyond the year 9999 in one document must not end the reading of all others
                datetime_conversion=DatetimeConversion.DATETIME_AUTO,
            )
            runs = client[settings.database].get_collection(settings.collection, codec_options=codec)
            yield RunDb(client, runs)
    except ConnectionFailure as error:
        how = f" through the tunnel to {settings.tunnel.ssh}" if settings.tunnel else ""
        raise RunDbAway(
            f"the run database at {uri}{how} does not answer within {settings.timeout_s:g} s "
            f"({first_line(error)}); check that it runs and that rundb in the config is right"
        ) from error
    except OperationFailure as error:
        hint = "; check rundb.user and the password" if error.code in (13, 18) else ""
        raise RunDbError(f"the run database at {uri} refuses: {first_line(error)}{hint}") from error
    except PyMongoError as error:
        raise RunDbError(f"the run database at {uri}: {first_line(error)}") from error
    finally:
        if tunnel:
            tunnel.close()


def password(config: Config) -> str:
    """The password, from the environment or from a file of mode 600.

    Raises:
        ConfigError: if there is none, or others may read the file.
    """
    settings = config.rundb
    from_environment = os.environ.get(settings.password_env)
    if from_environment:
        return from_environment
    file = settings.password_file
    if file is None:
        raise ConfigError(
            f"rundb.user is {settings.user!r} but there is no password: "
            f"set {settings.password_env} in the environment, or rundb.password_file"
        )
    try:
        mode = file.stat().st_mode & 0o777
        secret = file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"rundb.password_file {file}: {error.strerror}") from None
    if mode & 0o077:
        raise ConfigError(f"rundb.password_file {file}: others may read it (mode {mode:o}); chmod 600 {file}")
    return secret


def first_line(error: Exception) -> str:
    """The first clause of a pymongo message; the rest describes its topology at length."""
    return str(error).splitlines()[0].split(", Timeout:")[0].split(", full error:")[0]
