"""Command lines in the configuration: words with placeholders, filled in without a shell."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from string import Formatter
from typing import Any


def check_command(command: str, known: Iterable[str]) -> str:
    """Make sure that a command line can be filled in.

    Raises:
        ValueError: for an unknown placeholder, or unbalanced quotes or braces.
    """
    names = list(known)
    told = "placeholders are " + ", ".join(f"{{{name}}}" for name in names) + "; write {{ and }} for braces"
    try:
        words = shlex.split(command)
        used = {field for word in words for _, field, _, _ in Formatter().parse(word) if field is not None}
    except ValueError as error:
        raise ValueError(f"{error}; {told}") from None
    if not words:
        raise ValueError("is empty")
    if unknown := sorted(used - set(names)):
        raise ValueError(f"unknown placeholder {{{unknown[0]}}}; {told}")
    return command


def fill_command(command: str, fields: Mapping[str, Any]) -> list[str]:
    """The words of a command that was checked, with its placeholders filled in; no shell ever sees them."""
    return [word.format(**fields) for word in shlex.split(command)]
