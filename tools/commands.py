"""Make docs/commands.md from the parsers of the commands: python tools/commands.py [--check]."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from straxflow.cli.main import COMMANDS, module_of, parser_of

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "commands.md"
HEAD = """# The commands

Made from the commands' own help by `tools/commands.py`; `straxflow COMMAND --help` says the same. The work itself is
done by snakemake, with the same profiles; these commands look at it, order it and look after it.

| exit code | means |
|---|---|
| 0 | good |
| 1 | a problem was found, or something failed: what, is said |
| 2 | the command line or the configuration is wrong |
| 130 | interrupted (Ctrl-C) |

`straxflow health` has those of a monitor instead. With `--json` nothing but JSON is printed on standard output.

Runs are given as a number (`932`), a run id (`000932`), a range (`900-950`), or `@FILE` with one of these a line and
comments after `#`.

These options stand before or after every command:

"""


def rows(actions: list[argparse.Action]) -> Iterator[str]:
    """A table of arguments and options."""
    yield "| argument | meaning |"
    yield "|---|---|"
    for action in actions:
        yield f"| {_names(action)} | {_cell(action.help or '')} |"


def _names(action: argparse.Action) -> str:
    value = (
        action.metavar or "|".join(map(str, action.choices or ())) or (action.dest.upper() if action.nargs != 0 else "")
    )
    if not action.option_strings:
        value = str(value)
        several = {"*": f"[{value} ...]", "+": f"{value} ...", "?": f"[{value}]"}
        return f"`{_cell(several.get(str(action.nargs), value))}`"
    takes = "" if action.nargs == 0 or not value else f" {value}" + (" ..." if action.nargs in ("+", "*") else "")
    return ", ".join(f"`{_cell(option + takes)}`" for option in action.option_strings)


def _cell(text: str) -> str:
    return " ".join(text.replace("%%", "%").split()).replace("|", "\\|").replace("<", "\\<")


def page() -> str:
    """The page's text."""
    parser = parser_of(list(COMMANDS))
    subparsers = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    site = [a for a in parser._actions if a.dest in ("profile", "configfiles", "campaign")]
    parts = [HEAD + "\n".join(rows(site)), "\n| command | what it does | changes something |\n|---|---|---|"]
    for name, summary in COMMANDS.items():
        own = subparsers.choices[name]._actions
        writes = any("--dry-run" in a.option_strings for a in own)
        parts.append(f"| [{name}](#{name}) | {summary} | {'yes (`--dry-run`)' if writes else ''} |")
    for name in COMMANDS:
        module = module_of(name)
        shared = {"help", *(a.dest for a in site)}
        own = [a for a in subparsers.choices[name]._actions if a.dest not in shared]
        parts.append(f"\n## {name}\n\n{_description(module.DESCRIPTION)}\n")
        parts.append("```sh\n" + "\n".join(module.EXAMPLES) + "\n```")
        if own:
            parts += ["", *rows(own)]
    return "\n".join(parts) + "\n"


def _description(text: str) -> str:
    """Paragraphs as they are; lines that are indented stay lines."""
    lines = text.splitlines()
    if any(line.startswith("  ") for line in lines):
        return "```text\n" + text + "\n```"
    return text


def main() -> int:
    """Write the page, or with --check say whether it is in step."""
    if "--check" in sys.argv:
        return 0 if PAGE.read_text(encoding="utf-8") == page() else 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
