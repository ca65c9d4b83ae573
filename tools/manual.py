"""Make docs/steps.md from the rules' docstrings: python tools/manual.py [--check]."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "steps.md"
ORDER = ("claim", "transfer", "process", "checksum", "move_out", "register", "release")
HEAD = """# The steps

Made from the docstrings of `workflow/rules/` by `tools/manual.py`. Receipts are relative to the state folder of a
campaign; name one to make it: `snakemake --profile PROFILE RECEIPT`.

| rule | what it does | needs | leaves |
|---|---|---|---|
"""


def rules(text: str) -> list[tuple[str, str, str, str]]:
    """Name, docstring, inputs and outputs of each rule of a rules file."""
    found = []
    for block in re.split(r"^(?=(?:rule|checkpoint) \w+:)", text, flags=re.MULTILINE)[1:]:
        name = re.match(r"\w+ (\w+):", block)
        doc = re.search(r'"""(.*?)"""', block, re.DOTALL)
        if not name or not doc:
            raise SystemExit(f"a rule without a docstring: {block[:60]!r}")
        found.append((name[1], " ".join(doc[1].split()), _files(block, "input"), _files(block, "output")))
    return found


def _files(block: str, key: str) -> str:
    part = re.search(rf"^    {key}:\n((?:        .*\n)+)", block, re.MULTILINE)
    items = [item.strip().rstrip(",") for item in part[1].splitlines()] if part else []
    return "<br>".join(f"`{i.strip(chr(34))}`" if i.startswith('"') else i.replace("_", " ") for i in items)


def page() -> str:
    """The page's text."""
    rows = []
    for step in ORDER:
        text = (ROOT / "workflow" / "rules" / f"{step}.smk").read_text(encoding="utf-8")
        rows += [f"| {name} | {doc} | {needs} | {leaves} |" for name, doc, needs, leaves in rules(text)]
    return HEAD + "\n".join(rows) + "\n"


def main() -> int:
    """Write the page, or with --check say whether it is in step."""
    if "--check" in sys.argv:
        return 0 if PAGE.read_text(encoding="utf-8") == page() else 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
