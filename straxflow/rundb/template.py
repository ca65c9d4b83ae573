"""Templates of run ids and folders, read backwards: what a name says of a run."""

from __future__ import annotations

import re
from collections.abc import Mapping

PLACE, NAME = re.compile(r"(\{[^}]*\})"), re.compile(r"\{(\w+)")


def pattern_of(template: str, known: Mapping[str, str]) -> str:
    """The regular expression, with a group for each placeholder, that matches what a template gives; `known`
    placeholders match their value only.
    """
    pattern = ""
    for part in PLACE.split(template):
        name = NAME.match(part)
        if not name:
            pattern += re.escape(part)
        elif name[1] in known:
            pattern += re.escape(known[name[1]])
        elif f"(?P<{name[1]}>" in pattern:
            pattern += f"(?P={name[1]})"
        else:
            pattern += rf"(?P<{name[1]}>{r'[0-9]+' if name[1] == 'number' else r'[A-Za-z0-9_]+?'})"
    return pattern


def read_backwards(template: str, name: str, known: Mapping[str, str]) -> dict[str, str] | None:
    """The values of a template's placeholders that give this name; None if there are none."""
    match = re.fullmatch(pattern_of(template, known), name)
    return match.groupdict() if match else None
