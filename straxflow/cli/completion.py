"""`straxflow completion`: a script with which the shell completes commands and options."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import shtab

from straxflow.cli.main import COMMANDS, parser_of
from straxflow.config.load import ROOT

SHELLS = ("bash", "zsh", "fish")

DESCRIPTION = (
    "Prints a script with which the shell completes commands, options, profiles and files. Where to put it:\n"
    "  bash  ~/.local/share/bash-completion/completions/straxflow\n"
    "  zsh   a file _straxflow in a folder of $fpath\n"
    "  fish  ~/.config/fish/completions/straxflow.fish"
)
EXAMPLES = ("straxflow completion bash > ~/.local/share/bash-completion/completions/straxflow",)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("shell", choices=SHELLS, help="the shell")


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    parser = parser_of(list(COMMANDS))
    profiles = shtab.cmd(f"ls '{ROOT / 'profiles'}' 2>/dev/null")
    for action in _actions(parser):
        if "--configfile" in action.option_strings:
            action.complete = shtab.FILE
        elif "--profile" in action.option_strings:
            action.complete = profiles
    print(shtab.complete(parser, shell=arguments.shell))
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[Any]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield from _actions(one)
