"""One connection to the run database for as long as it holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from pymongo.errors import PyMongoError

from straxflow.config import Config
from straxflow.rundb.client import RunDb, connect


class Link:
    """A connection that is kept over many uses, and made anew after it failed or the configuration changed."""

    def __init__(self) -> None:
        self._context: AbstractContextManager[RunDb] | None = None
        self._db: RunDb | None = None
        self._config: Config | None = None

    @contextmanager
    def use(self, config: Config) -> Iterator[RunDb]:
        """The database.

        Raises:
            RunDbError: if it is away, refuses, or fails while it is used.
            ConfigError: if the password cannot be read.
        """
        if self._config is not config:
            self.close()
        if self._db is None:
            context = connect(config)
            self._db = context.__enter__()
            self._context, self._config = context, config
        try:
            yield self._db
        except PyMongoError as error:
            failed, self._context, self._db = self._context, None, None
            if failed:
                failed.__exit__(type(error), error, error.__traceback__)  # raises it in the user's words
            raise

    def close(self) -> None:
        """Close it."""
        context, self._context, self._db = self._context, None, None
        if context:
            context.__exit__(None, None, None)
