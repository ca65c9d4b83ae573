"""The errors a user can meet. A message says what happened, to which run or file, and what to do."""

from __future__ import annotations


class StraxflowError(Exception):
    """Something a user can understand and act on; shown without a traceback."""


class ConfigError(StraxflowError):
    """The configuration is not valid."""


class UsageError(StraxflowError):
    """A word of the command line is wrong."""


class RunDbError(StraxflowError):
    """The run database is away, refuses, or holds something unusable."""


class ClaimLost(StraxflowError):
    """Another invocation works on the run now; this one must stop and publish nothing."""


class Retryable(StraxflowError):
    """Not the run's fault (a host out of reach, a full disk); worth trying again."""


class NotComplete(Retryable):
    """The run is still being written (or copied); it is tried again, and not counted as a failure."""


class Damaged(StraxflowError):
    """Data is damaged or differs from what it must be; trying again does not help."""


class StepFailed(StraxflowError):
    """A step failed; it may succeed when tried again."""
