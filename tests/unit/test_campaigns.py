"""What a reprocessing campaign lays over the configuration."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from straxflow.campaigns import FILE, Campaign, fill, lay_over, read, source_state, write
from straxflow.config import load
from straxflow.errors import ConfigError
from straxflow.receipts import State
from straxflow.settings import settings_digest


def settings(state: Path) -> dict[str, Any]:
    return {
        "site": "here",
        "folders": {"state": str(state), "live": "/l", "staging": "/t"},
        "store": {"folder": "/st"},
        "daq": {"host": "daq", "folder": "/daq"},
        "runs": {"min_run_number": 0},
        "products": {
            "raw": {"from": "live"},
            "peaks": {"from": "raw", "targets": ["hits", "peaks"]},
            "events": {"from": "peaks", "modes": {"exclude": ["led"]}},
            "plot": {"from": "events", "kind": "command", "command": "plot {source} {corrections}"},
        },
        "strax": {"config": {"gap": 1, "gains": "online"}},
        "corrections": {"config": {"gains": "gains_{version}", "n": "{version}"}, "context_kwargs": {"v": "{version}"}},
    }


def campaign(**changes: Any) -> Campaign:
    made = datetime(2026, 1, 1, tzinfo=UTC)
    fields = {"name": "v5", "source": "online", "products": ["peaks", "events"], "by": "ada", "made": made}
    return Campaign(**{**fields, **changes})


def effective(state: Path, one: Campaign) -> Any:
    (state / one.name).mkdir(parents=True, exist_ok=True)
    write(State(state / one.name), one)
    raw = settings(state)
    lay_over(raw, one.name)
    once = dict(raw)
    lay_over(raw, one.name)
    assert raw == once, "jobs read settings over which it was laid already"
    return load(raw)


def test_only_what_is_named_is_made_the_rest_is_taken(tmp_path: Path) -> None:
    config = effective(tmp_path, campaign(corrections="v5", config={"gap": 7}))
    assert config.products_for("bg") == ["peaks", "events"]
    assert config.products_for("led") == ["peaks"]
    assert config.taken_from("raw") == "online"
    assert config.taken_from("peaks") is None
    assert config.taken_from("live") is None
    assert "transfer" not in config.steps
    assert not config.needs_live
    assert config.strax.config == {"gap": 7, "gains": "gains_v5", "n": "v5"}
    assert config.strax.context_kwargs == {"v": "v5"}
    state = State(tmp_path / "v5")
    assert source_state(config, state, "raw").folder == tmp_path / "online"
    assert source_state(config, state, "peaks") == state


def test_what_is_made_from_live_needs_its_transfer(tmp_path: Path) -> None:
    config = effective(tmp_path, campaign(products=["raw"]))
    assert "transfer" in config.steps
    assert config.needs_live
    assert config.products_for("bg") == ["raw"]
    assert config.strax.config == {"gap": 1, "gains": "online"}  # no version, no corrections


def test_a_command_s_lineage_knows_the_corrections(tmp_path: Path) -> None:
    plain = load(settings(tmp_path))
    digests = {settings_digest(plain, "plot")}
    for version in (None, "v5", "v6"):
        config = effective(tmp_path, campaign(products=["plot"], corrections=version))
        # what it is taken from is not made with them
        digests.add(settings_digest(config, "plot"))
    assert len(digests) == 3


def test_other_campaigns_and_broken_files(tmp_path: Path) -> None:
    raw = settings(tmp_path)
    lay_over(raw, "online")
    assert raw == settings(tmp_path)
    lay_over(odd := {"folders": 3}, "v5")
    assert odd == {"folders": 3}
    (tmp_path / "v5").mkdir()
    (tmp_path / "v5" / FILE).write_text("{}")
    with pytest.raises(ConfigError, match="not the description of a campaign"):
        lay_over(raw, "v5")
    write(State(tmp_path / "v5"), campaign(products=["gone"]))
    lay_over(raw, "v5")
    with pytest.raises(ConfigError, match=r"reprocessing.products: unknown product 'gone'"):
        load(raw)


def test_the_same_work_by_somebody_else_at_another_time(tmp_path: Path) -> None:
    later = campaign(by="bob", made=datetime(2027, 1, 1, tzinfo=UTC))
    assert campaign().same_work(later)
    assert not campaign().same_work(campaign(corrections="v6"))
    assert str(campaign(corrections="v6", config={"a": 1})) == (
        "v5: makes peaks, events; from online; corrections v6; a=1"
    )
    assert read(tmp_path, "v5") is None


def test_filling_keeps_types() -> None:
    fields = {"number": 7, "version": "v5"}
    filled = fill({"a": "{number}", "b": ["{version}-{number}", 3], "c": {"d": "{other}"}}, fields)
    assert filled == {"a": 7, "b": ["v5-7", 3], "c": {"d": "{other}"}}
