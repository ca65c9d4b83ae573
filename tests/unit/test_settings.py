from typing import Any

import pytest

from straxflow.config import Config
from straxflow.settings import settings_digest


def config(raw: dict[str, Any] | None = None, strax: dict[str, Any] | None = None, **changes: Any) -> Config:
    settings = {
        "site": "here",
        "folders": {name: f"/nowhere/{name}" for name in ("state", "live", "staging")},
        "store": {"folder": "/nowhere/store"},
        "daq": {"host": "daq", "folder": "/nowhere/daq"},
        "runs": {"min_run_number": 1},
        "strax": {"context": "a:b", "config": {"x": 1, "y": [1, 2]}} | (strax or {}),
        "products": {
            "raw": {"from": "live"} | (raw or {}),
            "peaks": {"from": "raw"},
            "quick": {"from": "live", "kind": "command", "command": "cp {source} {output}"},
        },
    }
    return Config.model_validate(settings | changes)


def test_it_is_ten_digits_and_stays_the_same() -> None:
    digest = settings_digest(config(), "peaks")
    assert len(digest) == 10
    assert int(digest, 16) >= 0
    assert digest == settings_digest(config(strax={"config": {"y": [1, 2], "x": 1}}), "peaks")


@pytest.mark.parametrize(
    "changed",
    [
        {"raw": {"config": {"z": 1}}},
        {"raw": {"context": "c:d"}},
        {"raw": {"targets": ["raw", "more"]}},
        {"strax": {"context": "c:d"}},
        {"strax": {"context_kwargs": {"version": 5}}},
        {"strax": {"config": {"x": 2}}},
    ],
)
def test_what_decides_the_data_changes_it_for_all_that_follows(changed: dict[str, Any]) -> None:
    for product in ("raw", "peaks"):
        assert settings_digest(config(**changed), product) != settings_digest(config(), product)
    assert settings_digest(config(**changed), "quick") == settings_digest(config(), "quick")


@pytest.mark.parametrize(
    "changed",
    [
        {"raw": {"workers": 4, "timeout_s": 5, "keep_staging": True, "modes": {"exclude": ["led"]}}},
        {"strax": {"workers": 3, "python": ["other"], "environment": {"A": "b"}, "max_gap_s": 9}},
        {"site": "there", "checksum": "sha256"},
    ],
)
def test_how_and_where_it_is_made_does_not(changed: dict[str, Any]) -> None:
    assert settings_digest(config(**changed), "peaks") == settings_digest(config(), "peaks")


def test_a_command_is_its_settings() -> None:
    other = config()
    products = {name: p.model_dump(by_alias=True) for name, p in other.products.items()}
    products["quick"]["command"] += " -v"
    assert settings_digest(config(products=products), "quick") != settings_digest(other, "quick")
