"""The pages say what is there."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from straxflow.cli.main import COMMANDS
from straxflow.config import load, read_files
from straxflow.config.load import merge

ROOT = Path(__file__).parents[2]


def test_the_page_of_steps_is_made_from_the_rules() -> None:
    done = subprocess.run([sys.executable, "tools/manual.py", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0, "python tools/manual.py puts docs/steps.md in step"


def test_the_page_of_commands_is_made_from_their_help() -> None:
    done = subprocess.run([sys.executable, "tools/commands.py", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0, "python tools/commands.py puts docs/commands.md in step"


@pytest.mark.parametrize("page", [*sorted(p.name for p in (ROOT / "docs").glob("*.md")), "../README.md"])
def test_links_lead_somewhere(page: str) -> None:
    path = (ROOT / "docs" / page).resolve()
    for link in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        if not link.startswith("http"):
            assert (path.parent / link).exists(), f"{page}: {link}"


def test_examples_of_the_page_on_migration_are_valid() -> None:
    text = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
    blocks = [textwrap.dedent(block) for block in re.findall(r"^ *```yaml\n(.*?)^ *```", text, flags=re.M | re.S)]
    assert len(blocks) == 3
    for block in blocks:
        settings = read_files([Path("config/xams.yaml")])
        merge(settings, yaml.safe_load(block))
        load(settings)


def test_commands_of_the_page_on_migration_are_there() -> None:
    text = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`straxflow (?:--profile \w+ )?([a-z]+)", text))
    assert named <= {*COMMANDS}, "straxflow has no such command"


def test_every_rule_has_a_docstring_a_log_and_a_benchmark() -> None:
    for file in (ROOT / "workflow" / "rules").glob("*.smk"):
        for block in re.split(r"^(?=(?:rule|checkpoint) )", file.read_text(encoding="utf-8"), flags=re.M)[1:]:
            for needed in ('"""', "    log:", "    benchmark:", "    shell:"):
                assert needed in block, f"{file.name}: {block.splitlines()[0]} {needed}"
