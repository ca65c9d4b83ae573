"""The verdict on one part, and how many are reached at once without one that hangs holding up the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from straxflow.errors import StraxflowError

Level = Literal["ok", "warning", "FAILED"]


@dataclass(frozen=True)
class Measure:
    """The value behind a verdict and its limits, for those who draw curves."""

    value: float
    unit: str = ""
    warning: float | None = None
    critical: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What was found of one part, and what to do about it."""

    part: str
    level: Level
    text: str
    remedy: str | None = None
    measure: Measure | None = None


@dataclass(frozen=True)
class Check:
    """A check of a part (which may reach verdicts on several) and the longest that it may take."""

    part: str
    find: Callable[[], Iterable[Verdict]]
    timeout_s: float = 30


def ok(part: str, text: str) -> Verdict:
    """All is well."""
    return Verdict(part, "ok", text)


def warning(part: str, text: str, remedy: str | None = None) -> Verdict:
    """The work goes on, but a person should know."""
    return Verdict(part, "warning", text, remedy)


def failed(part: str, text: str, remedy: str | None = None) -> Verdict:
    """The work stops here."""
    return Verdict(part, "FAILED", text, remedy)


def reach(checks: Sequence[Check]) -> Iterator[Verdict]:
    """Make all checks at once; their verdicts in the order of the checks, each as soon as it can be told."""
    found: list[list[Verdict]] = [[] for _ in checks]
    began = time.monotonic()
    # daemons: a look at a hung mount never ends, and must not keep the command from ending
    threads = [
        threading.Thread(target=_make, args=(check, found[i]), name=check.part, daemon=True)
        for i, check in enumerate(checks)
    ]
    for thread in threads:
        thread.start()
    for check, thread, verdicts in zip(checks, threads, found, strict=True):
        thread.join(max(began + check.timeout_s - time.monotonic(), 0))
        yield from list(verdicts)
        if thread.is_alive():
            hint = "a disk or a connection hangs; look at it by hand"
            yield failed(check.part, f"no answer within {check.timeout_s:g} s", hint)


def _make(check: Check, verdicts: list[Verdict]) -> None:
    try:
        verdicts.extend(check.find())
    except (StraxflowError, OSError) as error:
        verdicts.append(failed(check.part, str(error)))
    except Exception as error:  # one broken check must not hide what the others find
        verdicts.append(failed(check.part, f"unexpected {type(error).__name__}: {error}", "please report this"))
