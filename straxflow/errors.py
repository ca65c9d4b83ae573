"""The errors a user can meet. A message says what happened, to which run or file, and what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal


def as_text(said: str) -> str:
    """As a log, a receipt and the run database can hold it: names of files may be no UTF-8."""
    return said.encode("utf-8", "backslashreplace").decode()


class StraxflowError(Exception):
    """Something a user can understand and act on; shown without a traceback."""

    def __str__(self) -> str:
        return as_text(super().__str__())


class ConfigError(StraxflowError):
    """The configuration is not valid."""


class Misconfigured(ConfigError):
    """What makes a product is configured wrongly, as only its job finds out; it fails until the settings change."""


class UsageError(StraxflowError):
    """A word of the command line is wrong."""


class RunDbError(StraxflowError):
    """The run database is away, refuses, or holds something unusable."""


class ClaimLost(StraxflowError):
    """Another invocation works on the run now; this one must stop and publish nothing."""


class Retryable(StraxflowError):
    """Not the run's fault (a host out of reach, a full disk); worth trying again."""


class RunDbAway(RunDbError, Retryable):
    """The run database does not answer, for a while: no run's fault."""


class NotComplete(Retryable):
    """The run is still being written (or copied); it is tried again, and not counted as a failure."""


class Damaged(StraxflowError):
    """Data is damaged or differs from what it must be; trying again does not help."""


Cause = Literal["signal", "out of memory", "time-out", "node failure", "cancelled"]
"""What ended a job from outside."""


class StepFailed(StraxflowError):
    """A step failed; it may succeed when tried again."""

    def __init__(self, message: str, cause: Cause | None = None) -> None:
        super().__init__(message)
        self.cause = cause


class NotMounted(StepFailed, Retryable):
    """A folder is not there, or not marked, as when its disk is not mounted: no run's fault."""


_DISKS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or have the quota raised",
    errno.EROFS: "have the disk mounted for writing",
    errno.ESTALE: "have the disk mounted again",
    errno.EMFILE: "raise the limit (ulimit -n)",
    errno.ENFILE: "close what holds so many open on this machine",
}


def no_fault(trouble: Exception | str) -> str | None:
    """What to do about a full or read-only disk and the like, if that is the trouble: it is not the run's fault.

    An error tells by its number, or by that of its cause; another program by what it said.
    """
    if isinstance(trouble, str):
        return next((advice for code, advice in _DISKS.items() if os.strerror(code) in trouble), None)
    error = trouble if isinstance(trouble, OSError) else trouble.__cause__
    return _DISKS.get(error.errno or 0) if isinstance(error, OSError) else None


@contextmanager
def quiet_errors(shown_as: type[BaseException]) -> Iterator[None]:
    """Turn errors that a user can understand into the kind that snakemake shows without a traceback."""
    try:
        yield
    except StraxflowError as error:
        raise shown_as(f"straxflow: {error}") from None
    except OSError as error:
        told = f"{error.filename or 'the state folder'}: {error.strerror or error}"
        advice = no_fault(error)
        raise shown_as(f"straxflow: {told}{f': {advice}' if advice else ''}") from None
