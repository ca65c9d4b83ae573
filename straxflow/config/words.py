"""Command lines in the configuration: words with placeholders, filled in without a shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from string import Formatter
from typing import Any

FOREIGN = ("mode", "reason")
"""Placeholders whose words come from a run document, or from what a program said."""
SHELLS = ("sh", "bash", "dash", "ksh", "zsh", "csh", "tcsh", "fish")


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
    for word in _scripts(words):
        if foreign := [name for name in FOREIGN if re.search(rf"\{{{name}\b", word)]:
            raise ValueError(
                f"a shell would read {{{foreign[0]}}} as commands, and others say what it is: make it an argument, "
                f"sh -c '... \"$1\" ...' sh {{{foreign[0]}}}"
            )
    if unknown := sorted(used - set(names)):
        raise ValueError(f"unknown placeholder {{{unknown[0]}}}; {told}")
    try:
        fill_command(command, {name: 932 if name in ("number", "count") else "word" for name in names})
    except (ValueError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"does not fit: {error}; {told}") from None
    return command


def _scripts(words: list[str]) -> Iterator[str]:
    """Words that a shell, here or on another host, reads as commands."""
    shell = next((i for i, word in enumerate(words) if PurePath(word).name in SHELLS), None)
    if shell is not None:
        option = next((i for i, word in enumerate(words[shell:], shell) if re.fullmatch(r"-[a-z]*c", word)), None)
        yield from words[option + 1 : option + 2] if option is not None else []
    ssh = next((i for i, word in enumerate(words) if PurePath(word).name == "ssh"), None)
    if ssh is not None:
        yield from words[ssh + 1 :]


def fill_command(command: str, fields: Mapping[str, Any]) -> list[str]:
    """The words of a command that was checked, with its placeholders filled in; no shell ever sees them."""
    return [word.format(**fields) for word in shlex.split(command)]
