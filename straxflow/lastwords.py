"""What a program said last that means something to a person: neither its progress nor Python's frames."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

LINES = 3
LONGEST = 400
TAIL = 64 * 1024
"""Bytes at the end of a log that are looked at."""

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")
_PASSWORD = re.compile(r"//[^@/\s]*:[^@/\s]*@")
_FRAME = re.compile(r"(\s*)File \"[^\"]*\", line \d+")
_NOISE = re.compile(
    r"""
    \W*$                                                   # nothing but signs: carets, rulers, braces
    | \W*Traceback\ \(most\ recent\ call\ last\)
    | \W*(Exception\ Group\ Traceback|\[Previous\ line\ repeated)
    | During\ handling\ of\ the\ above\ exception
    | The\ above\ exception\ was\ the\ direct\ cause
    | (Current\ thread|Thread)\ 0x\w+
    | .*\d\s?%\s?\|                                        # progress, as tqdm shows it
    | .*\d\s?%\s.*\d\s?\w*/s                               # as rsync does
    | .*\d\s?(it|s|[kMG]?i?B|chunks?|rows?)/(s|it|chunk)\b.*[\]\[]
    | \d{4}-\d\d-\d\d[\sT][\d:,.]+\s(INFO|DEBUG)\b
    """,
    re.VERBOSE,
)
_ERROR = re.compile(
    r"\b\w*(error|exception|fatal|fail(ed|ure)?|critical|abort(ed)?|killed|fault|denied|cannot|could not|can't|"
    r"no such|not found|out of memory|no space)\b",
    re.IGNORECASE,
)


def last_words(text: str) -> str:
    """The last line that means something, and before it the last ones that tell of an error; joined by ` | `."""
    said = list(dict.fromkeys(_meaningful(text)))
    if not said:
        return ""
    errors = [line for line in said[:-1] if _ERROR.search(line)]
    joined = " | ".join([*errors[1 - LINES :], said[-1]])
    return joined if len(joined) <= LONGEST else "... " + joined[4 - LONGEST :]


def last_words_of(log: Path, begin: int = 0) -> str:
    """The last words in a file from a position on; none if it cannot be read."""
    try:
        with log.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(begin, end - TAIL))
            return last_words(file.read().decode(errors="replace"))
    except OSError:
        return ""


def _meaningful(text: str) -> Iterator[str]:
    frame: int | None = None
    for line in _shown(_ANSI.sub("", text)):
        found = _FRAME.match(line)
        if found:
            frame = len(found[1])
            continue
        if frame is not None and len(line) - len(line.lstrip()) > frame:
            continue  # the source line of the frame, and its marks
        frame = None
        if line.strip() and not _NOISE.match(line):
            plain = "".join(c if c.isprintable() else " " for c in line)
            yield _PASSWORD.sub("//***@", " ".join(plain.split()))


def _shown(text: str) -> Iterator[str]:
    """Lines as a terminal shows them in the end: what follows the last carriage return."""
    for line in text.split("\n"):
        parts = [part for part in line.split("\r") if part.strip()]
        yield parts[-1] if parts else ""
