"""An invocation whose runs were taken over is asked to end."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from straxflow import claimfile
from straxflow.owner import Owner
from straxflow.receipts import State
from straxflow.takeover import Watchman


def claim(state: State, run: str, batch: str, token: int) -> None:
    claimfile.write(state, claimfile.ClaimFile(run=run, token=token, batch=batch, owner=Owner.current().as_dict()))


def test_a_claim_of_another_is_noticed(tmp_path: Path) -> None:
    state = State(tmp_path)
    watchman = Watchman(state, "mine", lambda: ["000001", "000002", "000003"])
    claim(state, "000001", "mine", 1)
    claim(state, "000002", "mine", 1)
    claimfile.path(state, "000003").parent.mkdir(parents=True)
    claimfile.path(state, "000003").write_text("{")
    assert watchman.taken() is None
    claim(state, "000002", "theirs", 2)
    found = watchman.taken()
    assert found and (found.run, found.batch) == ("000002", "theirs")


def test_the_process_is_asked_to_end_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = State(tmp_path)
    asked: list[Any] = []
    monkeypatch.setattr(os, "kill", lambda *words: asked.append(words))
    monkeypatch.setattr("straxflow.takeover.EVERY_S", 0.01)
    claim(state, "000001", "theirs", 1)
    watchman = Watchman(state, "mine", lambda: ["000001"])
    watchman.start()
    watchman._thread.join(10)
    assert asked == [(os.getpid(), signal.SIGTERM)]


def test_it_ends_when_told(tmp_path: Path) -> None:
    watchman = Watchman(State(tmp_path), "mine", lambda: [])
    watchman.start()
    time.sleep(0.01)
    watchman.stop()
    watchman._thread.join(10)
    assert not watchman._thread.is_alive()
