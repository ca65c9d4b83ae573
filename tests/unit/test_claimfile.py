from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from straxflow import claimfile
from straxflow.claimfile import ClaimFile, Fence
from straxflow.errors import ClaimLost
from straxflow.receipts import State


def a_claim(token: int, batch: str = "mine") -> ClaimFile:
    return ClaimFile(run="000001", token=token, batch=batch, owner={"host": "here", "pid": 7})


def test_no_claim_no_work(tmp_path: Path) -> None:
    assert claimfile.read(State(tmp_path), "000001") is None
    with pytest.raises(ClaimLost, match="no invocation has claimed it"):
        Fence.enter(State(tmp_path), "000001", "mine")


def test_another_invocations_claim_is_named(tmp_path: Path) -> None:
    state = State(tmp_path)
    claimfile.write(state, a_claim(1, "other"))
    with pytest.raises(ClaimLost, match=r"claimed by invocation other on here \(pid 7\), not by mine"):
        Fence.enter(state, "000001", "mine")


def test_a_fence_falls_with_a_later_token_of_the_same_batch(tmp_path: Path) -> None:
    state = State(tmp_path)
    claimfile.write(state, a_claim(1))
    fence = Fence.enter(state, "000001", "mine")
    fence.check()
    claimfile.write(state, a_claim(2))
    with pytest.raises(ClaimLost, match="publishes nothing"):
        fence.check()


def test_a_fence_falls_when_the_file_is_gone_or_not_readable(tmp_path: Path) -> None:
    state = State(tmp_path)
    claimfile.write(state, a_claim(1))
    fence = Fence.enter(state, "000001", "mine")
    file = claimfile.path(state, "000001")
    text = file.read_text()
    file.write_text(text[: len(text) // 2])
    with pytest.raises(ClaimLost, match="is not a claim"):
        fence.check()
    file.unlink()
    with pytest.raises(ClaimLost, match="file gone"):
        fence.check()


def test_a_broken_file_is_replaced(tmp_path: Path) -> None:
    state = State(tmp_path)
    claimfile.write(state, a_claim(1))
    claimfile.path(state, "000001").write_text("{")
    claimfile.write(state, a_claim(2))
    assert claimfile.read(state, "000001") == claimfile.read(state, "000001")
    Fence.enter(state, "000001", "mine").check()


@settings(deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=8))
def test_in_any_order_the_latest_claim_stands(tmp_path_factory: pytest.TempPathFactory, tokens: list[int]) -> None:
    state = State(tmp_path_factory.mktemp("state"))
    highest = 0
    for token in tokens:
        if token < highest:
            with pytest.raises(ClaimLost):
                claimfile.write(state, a_claim(token))
        else:
            claimfile.write(state, a_claim(token))
            highest = token
        found = claimfile.read(state, "000001")
        assert found is not None
        assert found.token == highest
