"""The model, its documentation and the examples stay in step."""

import re
from pathlib import Path

import pytest
import yaml

from straxflow.config import Config, document, load_files
from straxflow.config.load import ROOT

EXAMPLES = sorted((ROOT / "config").glob("*.yaml"))


def test_the_reference_is_the_models() -> None:
    text = (ROOT / "docs/config.md").read_text(encoding="utf-8")
    assert text == document.markdown(), "straxflow config --doc > docs/config.md puts this right"


def test_the_reference_names_every_section_and_describes_every_key() -> None:
    text = document.markdown()
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    for section in (
        "`folders`",
        "`rundb.tunnel`",
        "`products.<name>`",
        "`products.<name>.modes`",
        "`resources.<step>`",
    ):
        assert section in headings
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \| (.*) \|$", text, re.MULTILINE)
    assert {"min_run_number", "remote_port", "from", "mem_mb"} <= {row[0] for row in rows}
    assert [row[0] for row in rows if not row[3].strip()] == []


def test_the_schema_knows_required_and_forbidden_keys() -> None:
    schema = document.schema()
    assert {"site", "folders", "store", "daq", "runs", "products"} == set(schema["required"])
    assert schema["additionalProperties"] is False
    assert "from" in schema["$defs"]["Product"]["properties"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_valid_and_survive_being_shown(example: Path, tmp_path: Path) -> None:
    config = load_files([example])
    shown = tmp_path / "shown.yaml"
    shown.write_text(document.effective(config), encoding="utf-8")
    assert load_files([shown]) == config


def test_no_secret_is_shown() -> None:
    config = load_files([ROOT / "config/config.yaml"])
    secret = {"environment": {"DB_PASSWORD": "hunter2", "OMP_NUM_THREADS": "1"}}
    changed = Config.model_validate(config.model_dump(by_alias=True) | {"strax": secret})
    shown = document.effective(changed)
    assert "hunter2" not in shown
    assert yaml.safe_load(shown)["strax"]["environment"]["OMP_NUM_THREADS"] == "1"
