"""Which receipts a step done again sets aside, and that a kill half-way leaves a run that goes on."""

import json
from pathlib import Path

import pytest

from straxflow import redo
from straxflow.config import Config, load
from straxflow.errors import UsageError
from straxflow.plan import receipts_of
from straxflow.receipts import State

RUN = "000001"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load({
        "site": "here",
        "folders": {"state": str(tmp_path), "live": "l", "staging": str(tmp_path / "staging")},
        "store": {"folder": "st"},
        "daq": {"host": "daq", "folder": "/daq"},
        "runs": {"min_run_number": 0},
        "products": {
            "raw": {"from": "live"}, "peaks": {"from": "raw"}, "events": {"from": "peaks"}, "veto": {"from": "raw"}
        },
    })  # fmt: skip


@pytest.fixture
def state(tmp_path: Path, config: Config) -> State:
    made = State(tmp_path / "online")
    for receipt in receipts_of(config, RUN, "bg"):
        path = made.folder / receipt
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return made


def names(state: State, paths: list[Path]) -> list[str]:
    return [str(path.relative_to(state.run(RUN))) for path in paths]


def chain(*products: str) -> set[str]:
    steps = ("processed", "checksums", "stored", "registered")
    return {f"{product}/{step}.json" for product in products for step in steps}


def test_a_step_and_all_after_it_the_last_first(config: Config, state: State) -> None:
    def found(step: str, product: str | None = None) -> list[str]:
        return names(state, redo.receipts_from(config, state, RUN, "bg", step, product))

    assert found("register", "peaks") == ["released.json", "peaks/registered.json"]
    assert found("checksum", "veto")[1:] == ["veto/registered.json", "veto/stored.json", "veto/checksums.json"]
    # what is made from it is made again too, and set aside before it
    again = found("process", "peaks")
    assert set(again) == {"released.json"} | chain("peaks", "events")
    assert again.index("events/processed.json") < again.index("peaks/registered.json")
    assert found("release") == ["released.json"]
    everything = found("transfer")
    assert len(everything) == len(receipts_of(config, RUN, "bg"))
    assert everything[-1] == "live/transferred.json"
    for step, product, words in (
        ("release", "peaks", "whole run"), ("process", "s2", "no s2 is made"), ("move", None, "this site does"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=words):
            found(step, product)


def test_a_kill_half_way_leaves_earlier_steps_whole(
    config: Config, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = redo.receipts_from(config, state, RUN, "bg", "process", "events")
    real, left = Path.rename, 3

    def dying(path: Path, target: Path) -> Path:
        nonlocal left
        if path.parent.name == "events":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return real(path, target)

    monkeypatch.setattr(Path, "rename", dying)
    with pytest.raises(KeyboardInterrupt):
        redo.set_aside(state, RUN, "process", wanted, {"by": "ada"})
    monkeypatch.undo()
    there = {path.name for path in (state.run(RUN) / "events").glob("*.json")}
    assert there == {"processed.json", "checksums.json"}
    assert not redo.ordered(state, RUN, "events")

    rest = redo.receipts_from(config, state, RUN, "bg", "process", "events")
    folder = redo.set_aside(state, RUN, "process", rest, {"by": "ada", "reason": None})
    assert {path.name for path in (state.run(RUN) / "events").glob("*.json")} == {"redo.json"}
    assert redo.ordered(state, RUN, "events")
    assert not redo.ordered(state, RUN, "peaks")
    assert json.loads((folder / "redo.json").read_text())["by"] == "ada"
    kept = [path.name for path in (state.run(RUN) / "history").rglob("*.json") if path.name != "redo.json"]
    assert sorted(kept) == ["checksums.json", "processed.json", "registered.json", "released.json", "stored.json"]
    redo.fulfil(state, RUN, "events")
    redo.fulfil(state, RUN, "events")
    assert not redo.ordered(state, RUN, "events")
