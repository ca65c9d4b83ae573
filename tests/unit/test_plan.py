from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from straxflow.attempts import AttemptFile
from straxflow.config import STEPS, Config
from straxflow.plan import Standing, final_receipts, receipts_of, standing
from straxflow.receipts import State, now

RUN = "000001"


def config(**changes: Any) -> Config:
    settings = {
        "site": "here",
        "folders": {name: f"/nowhere/{name}" for name in ("state", "live", "staging")},
        "store": {"folder": "/nowhere/store"},
        "daq": {"host": "daq", "folder": "/nowhere/daq"},
        "runs": {"min_run_number": 1},
        "strax": {"context": "a:b"},
        "products": {
            "events": {"from": "raw", "modes": {"exclude": ["led*"]}},
            "raw": {"from": "live"},
            "led": {"from": "raw", "modes": {"include": ["led*"]}},
            "late": {"from": "events"},
        },
    }
    return Config.model_validate(settings | changes)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (STEPS, ["released.json"]),
        (STEPS[:5], ["live/registered.json", "raw/registered.json", "events/registered.json", "late/registered.json"]),
        (STEPS[:1], ["live/registered.json"]),
        (STEPS[:2], ["raw/processed.json", "events/processed.json", "late/processed.json"]),
        (STEPS[1:4], ["raw/stored.json", "events/stored.json", "late/stored.json"]),
    ],
)
def test_what_a_run_ends_in(steps: tuple[str, ...], expected: list[str]) -> None:
    some = config(steps=list(steps))
    assert final_receipts(some, RUN, "background") == [f"runs/{RUN}/{name}" for name in expected]
    assert set(final_receipts(some, RUN, "background")) <= set(receipts_of(some, RUN, "background"))


def test_all_receipts_of_a_run() -> None:
    assert [r.removeprefix(f"runs/{RUN}/") for r in receipts_of(config(), RUN, "led")] == [
        "live/transferred.json",
        "live/registered.json",
        *(f"{p}/{n}.json" for p in ("raw", "led") for n in ("processed", "checksums", "stored", "registered")),
        "released.json",
    ]


def test_a_product_is_made_with_its_source_only() -> None:
    assert config().products_for("led_long") == ["raw", "led"]
    assert config().products_for("background") == ["raw", "events", "late"]


def complete(state: State, names: list[str]) -> None:
    for name in names:
        path = state.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")


def test_all_receipts_are_done_or_reached(tmp_path: Path) -> None:
    state = State(tmp_path)
    some = config(steps=["transfer", "process"])
    complete(state, receipts_of(some, RUN, "background"))
    found = standing(some, state, RUN, "background")
    assert (found.state, found.reason) == ("reached", "reached transfer process")
    assert standing(config(), state, RUN, "background").state == "pending"
    complete(state, receipts_of(config(), RUN, "background"))
    assert standing(config(), state, RUN, "background").state == "done"


def test_a_failure_is_not_hidden_by_receipts_of_earlier_passes(tmp_path: Path) -> None:
    state = State(tmp_path)
    complete(state, receipts_of(config(), RUN, "background"))
    began = now()
    AttemptFile.start(state, RUN, "raw", "process", "b", "logs/x").end("failed", "words", 1)
    assert standing(config(), state, RUN, "background", since=began).state == "failed"
    # without a claim to judge by, the receipts count
    assert standing(config(), state, RUN, "background").state == "done"
    AttemptFile.start(state, RUN, "raw", "process", "b", "logs/x").end("ok", exit_code=0)
    assert standing(config(), state, RUN, "background", since=began).state == "done"


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([], "pending"),
        (["ok"], "pending"),
        (["failed", "ok"], "pending"),
        (["ok", "failed"], "failed"),
        (["killed"], "failed"),
        (["retry"], "waiting"),
        (["failed", "damaged"], "damaged"),
        (["misconfigured"], "misconfigured"),
        (["claim lost"], "pending"),
    ],
)
def test_attempts_tell_why_receipts_are_missing(tmp_path: Path, outcomes: list[Any], expected: str) -> None:
    state = State(tmp_path)
    complete(state, [r for r in receipts_of(config(), RUN, "background") if "/live/" in r])
    for outcome in outcomes:
        AttemptFile.start(state, RUN, "raw", "process", "b", "logs/x").end(outcome, "words", 1)
    found = standing(config(), state, RUN, "background")
    assert found.state == expected
    if expected in ("failed", "damaged", "misconfigured", "waiting"):
        assert (found.reason, found.log) == ("process of raw: words", str(tmp_path / "logs/x"))


def test_what_can_be_mended_by_another_try_decides_and_the_worst_is_told_first(tmp_path: Path) -> None:
    state = State(tmp_path)
    some = config(products={"raw": {"from": "live"}, "events": {"from": "raw"}, "other": {"from": "raw"}})
    complete(state, [r for r in receipts_of(some, RUN, "led") if "/live/" in r or "/raw/" in r])
    began = now()

    def ends(product: str, outcome: Any) -> Standing:
        AttemptFile.start(state, RUN, product, "process", "b", "logs/x").end(outcome, "words", 1)
        return standing(some, state, RUN, "background", began)

    damaged = ends("events", "damaged")
    # nobody has come to `other`
    assert (damaged.state, damaged.reason, set(damaged.failures)) == ("pending", "process of events: words", {"events"})
    assert damaged.made == {"live", "raw"}
    assert ends("other", "damaged").state == "damaged"
    assert ends("other", "misconfigured").state == "damaged"
    assert ends("other", "retry").state == "waiting"
    failed = ends("other", "failed")
    assert (failed.state, failed.reason) == ("failed", "process of events: words; process of other: words")
    assert ends("raw", "damaged").made == {"live"}


def test_what_is_left_out_is_not_waited_for(tmp_path: Path) -> None:
    state = State(tmp_path)
    left_out = {"events": "given up after 2 failures: process: words", "late": "made from events"}
    wanted = receipts_of(config(), RUN, "background", None, left_out)
    assert f"runs/{RUN}/raw/stored.json" in wanted
    assert not [r for r in wanted if "events" in r or "late" in r]
    assert f"runs/{RUN}/released.json" in final_receipts(config(), RUN, "background", None, left_out)
    complete(state, wanted)
    assert standing(config(), state, RUN, "background", now()).state == "pending"
    found = standing(config(), state, RUN, "background", now(), left_out=left_out)
    assert (found.state, found.made) == ("incomplete", {"live", "raw"})
    assert found.reason == (
        "raw made; left out: events: given up after 2 failures: process: words; late: made from events"
    )


def test_attempts_of_earlier_claims_do_not_count(tmp_path: Path) -> None:
    state = State(tmp_path)
    AttemptFile.start(state, RUN, "raw", "process", "b", "logs/x").end("failed", "words", 1)
    assert standing(config(), state, RUN, "background", since=now() + timedelta(seconds=1)).state == "pending"
    assert standing(config(), state, RUN, "background", since=now() - timedelta(seconds=60)).state == "failed"


@settings(deadline=None)
@given(st.lists(st.sampled_from(["ok", "failed", "damaged", "retry", "killed", "claim lost"]), max_size=4))
def test_a_run_is_done_only_by_its_receipts(tmp_path_factory: pytest.TempPathFactory, outcomes: list[Any]) -> None:
    state = State(tmp_path_factory.mktemp("state"))
    for outcome in outcomes:
        AttemptFile.start(state, RUN, "raw", "process", "b", "logs/x").end(outcome, "words", 1)
    assert standing(config(), state, RUN, "background").state not in ("done", "reached")
