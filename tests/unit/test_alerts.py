"""Who is told of failed runs, and how often, by a real program that notes what it is told."""

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from straxflow import alerts
from straxflow.alerts import LEFT, tell
from straxflow.config import Config, load
from straxflow.hooks import Facts
from straxflow.receipts import State, now


def config(tmp_path: Path, **hooks: Any) -> Config:
    script = tmp_path / "note.py"
    script.write_text(
        f"import sys\nopen({str(tmp_path / 'told')!r}, 'a').write(sys.stdin.read() + chr(10))\nsys.exit(1)"
    )
    settings = {
        "site": "here",
        "folders": {name: str(tmp_path / name) for name in ("state", "live", "staging")},
        "store": {"folder": str(tmp_path / "store")},
        "daq": {"host": "daq", "folder": str(tmp_path / "daq")},
        "runs": {"min_run_number": 1},
        "products": {"raw": {"from": "live"}},
        "hooks": {"on_failure": f"{sys.executable} {script}", **hooks},
    }
    return load(settings, tmp_path)


def told(tmp_path: Path) -> list[dict[str, Any]]:
    """What the program was told since the last time."""
    file = tmp_path / "told"
    lines = file.read_text().splitlines() if file.exists() else []
    file.write_text("")
    return [json.loads(line) for line in lines]


def failure(run: int, count: int = 1, state: str = "failed", step: str = "process") -> Facts:
    return Facts(
        state=state, reason=f"{step} of raw: words {run}", run=f"{run:06d}", number=run, step=step, product="raw",
        count=count, log="/l", batch="b",
    )  # fmt: skip


def let_pass(state: State, **time: float) -> None:
    """As if so much time had passed."""
    file = state.folder / "alerts.json"
    memory = json.loads(file.read_text())
    earlier = lambda text: (alerts.Memory(calls=[text]).calls[0] - timedelta(**time)).isoformat()  # noqa: E731
    memory["calls"] = [earlier(text) for text in memory["calls"]]
    memory["told"] = {run: earlier(text) for run, text in memory["told"].items()}
    file.write_text(json.dumps(memory))


def test_the_same_run_is_not_told_again_and_again(tmp_path: Path) -> None:
    chosen, state = config(tmp_path, repeat_h=12, per_hour=100), State(tmp_path)
    tell(chosen, state, [failure(1)])
    (first,) = told(tmp_path)
    assert first["run"] == "000001" and first["reason"] == "process of raw: words 1" and first["count"] == 1
    for count in (2, 3, 4):
        tell(chosen, state, [failure(1, count)])
    assert told(tmp_path) == []
    let_pass(state, hours=11)
    tell(chosen, state, [failure(1, 5)])
    assert told(tmp_path) == []
    let_pass(state, hours=2)
    tell(chosen, state, [failure(1, 6)])
    assert len(told(tmp_path)) == 1
    # the last one, and the first one after a person forgave it all, are always told
    tell(chosen, state, [failure(1, 10, LEFT)])
    assert [one["state"] for one in told(tmp_path)] == [LEFT]
    tell(chosen, state, [failure(1, 1)])
    assert len(told(tmp_path)) == 1


def test_many_at_once_are_told_in_one_call(tmp_path: Path) -> None:
    chosen, state = config(tmp_path, at_once=2), State(tmp_path)
    tell(chosen, state, [failure(1), failure(2)])
    assert [one["run"] for one in told(tmp_path)] == ["000001", "000002"]
    tell(chosen, state, [*(failure(n) for n in range(10, 40)), failure(40, 10, LEFT, "transfer")])
    (storm,) = told(tmp_path)
    assert storm["count"] == len(storm["runs"]) == 31
    assert storm["run"].startswith("000010 000011") and storm["run"].endswith(" and 11 more")
    assert storm["reason"] == (
        "31 runs failed (1 of them are left to a person): 30 x process of raw, e.g. run 000039: process of raw: words "
        "39; 1 x transfer of raw, e.g. run 000040: transfer of raw: words 40"
    )


def test_a_storm_over_many_invocations_waits_and_is_told_in_one_call(tmp_path: Path) -> None:
    chosen, state = config(tmp_path, per_hour=3), State(tmp_path)
    for run in range(1, 21):
        tell(chosen, state, [failure(run)])
    assert [one["run"] for one in told(tmp_path)] == ["000001", "000002", "000003"]
    tell(chosen, state, [])
    assert told(tmp_path) == []
    let_pass(state, minutes=61)
    tell(chosen, state, [])
    (later,) = told(tmp_path)
    assert later["count"] == 17
    tell(chosen, state, [])
    assert told(tmp_path) == []


def test_nothing_to_tell_leaves_nothing(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    tell(config(tmp_path), state, [])
    assert not state.folder.exists()
    without = config(tmp_path).model_copy(
        update={"hooks": config(tmp_path).hooks.model_copy(update={"on_failure": None})}
    )
    tell(without, state, [failure(1)])
    assert not state.folder.exists()


def test_a_damaged_memory_and_a_disk_that_is_away_stop_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = config(tmp_path)
    (tmp_path / "alerts.json").write_text('{"calls": [1')
    tell(chosen, State(tmp_path), [failure(1)])
    assert len(told(tmp_path)) == 1
    tell(chosen, State(tmp_path / "gone"), [failure(1)])
    assert "nobody is told of 1 failed runs: " in caplog.text
    assert alerts.Memory.model_validate_json((tmp_path / "alerts.json").read_text()).calls[0] <= now()
