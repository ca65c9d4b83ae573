"""The failure law by itself: what is remembered, when a run is due again, and what of it is then still made."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from straxflow.attempts import Attempt
from straxflow.config import Config
from straxflow.failures import REMEMBERED, judge, left_out
from straxflow.plan import Standing
from straxflow.rundb.asked import left_out_of, person_asks
from straxflow.rundb.rundoc import parse

NOW = datetime(2026, 1, 2, tzinfo=UTC)
Part = dict[str, Any]


def config(**changes: Any) -> Config:
    settings = {
        "site": "here",
        "folders": {name: f"/nowhere/{name}" for name in ("state", "live", "staging")},
        "store": {"folder": "/nowhere/store"},
        "daq": {"host": "daq", "folder": "/nowhere/daq"},
        "runs": {"min_run_number": 1},
        "products": {
            "raw": {"from": "live"},
            "peaks": {"from": "raw"},
            "events": {"from": "peaks"},
            "led": {"from": "raw", "modes": {"include": ["led"]}},
        },
    }
    return Config.model_validate(settings | changes)


FEWER = config(failures={"fewer_products": {2: ["raw", "peaks"], 6: ["raw"]}})


def failed(product: str = "events", outcome: Any = "failed", reason: str = "words") -> Standing:
    attempt = Attempt(
        run="1", product=product, step="process", batch="b", owner={}, log="l", outcome=outcome, reason=reason
    )
    state: Any = {"failed": "failed", "retry": "waiting"}.get(outcome, outcome)
    return Standing(state, f"process of {product}: {reason}", "/l", {product: attempt}, frozenset({"live", "raw"}))


def after(part: Part, standing: Standing, chosen: Config | None = None, now: datetime = NOW) -> Part:
    """The document's part after a run was given back."""
    verdict = judge(chosen or config(), part, standing, now)
    assert not verdict.sets.keys() & verdict.unsets
    return {name: value for name, value in part.items() if name not in verdict.unsets} | verdict.sets


def test_the_pause_grows_to_a_limit_and_the_last_failure_leaves_the_run_to_a_person() -> None:
    part: Part = {}
    for n, factor in enumerate([1, 5, 25, 125, 125, 125, 125, 125, 125]):
        part = after(part, failed())
        assert part["failures"] == part["products_failed"]["events"]["count"] == n + 1
        assert 30 * factor <= (part["due"] - NOW).total_seconds() <= 90 * factor
    verdict = judge(config(), part, failed(), NOW)
    assert verdict.settled
    assert verdict.reason == "process of events: words; failed 10 times, so it is left to a person"
    assert "due" not in after(part, failed())


def test_all_of_the_pause_is_configured() -> None:
    chosen = config(failures={"give_up_after": 4, "backoff_s": 10, "growth": 2, "growth_steps": 1})
    part: Part = {}
    for factor in (1, 2, 2):
        part = after(part, failed(), chosen)
        assert 5 * factor <= (part["due"] - NOW).total_seconds() <= 15 * factor
    assert judge(chosen, part, failed(), NOW).settled


def test_what_is_made_is_forgotten_and_done_forgets_all() -> None:
    part = after(after({}, failed("raw")), failed("events"))
    assert set(part["products_failed"]) == {"events"}
    assert part["failures"] == 2
    told = part["products_failed"]["events"]
    assert told == {
        "count": 1, "step": "process", "reason": "words", "log": "l", "cause": None, "permanent": None,
        "settings": None, "time": NOW,
    }  # fmt: skip
    part = after(part, failed("events", "retry"))
    assert (part["products_failed"]["events"], part["failures"], part["waits"]) == (told, 2, 1)
    assert after({**part, "token": 3}, Standing("done")) == {"token": 3}


def test_waiting_and_interrupted_runs_are_not_counted() -> None:
    part: Part = {}
    for n, factor in enumerate([1, 2, 4, 8, 8]):
        part = after(part, failed(outcome="retry"))
        assert part["waits"] == n + 1
        assert 30 * factor <= (part["wait_until"] - NOW).total_seconds() <= 90 * factor
    assert "failures" not in part
    assert after({}, Standing("pending")) == {}


def test_fewer_products_after_failures_of_the_others() -> None:
    part: Part = {}
    for count in range(1, 8):
        part = after(part, failed("events"), FEWER)
        out = left_out(FEWER, "background", part)
        assert out == ({} if count < 2 else {"events": f"given up after {count} failures: process: words"})
    part = {}
    for _ in range(5):
        part = after(part, failed("peaks"), FEWER)
    assert left_out(FEWER, "background", part) == {}
    part = after(part, failed("peaks"), FEWER)
    six = {"peaks": "given up after 6 failures: process: words", "events": "made from peaks"}
    assert left_out(FEWER, "background", part) == six
    assert left_out(config(), "background", part) == {}
    # what is never given up is left to a person with the run
    for _ in range(20):
        part = after(part, failed("raw"), FEWER)
    assert "raw" not in left_out(FEWER, "background", part)


def test_the_end_of_a_run_with_fewer_products() -> None:
    part = after(after({}, failed(), FEWER), failed(), FEWER)
    assert "due" in part
    verdict = judge(FEWER, part, Standing("incomplete", "raw made; left out: events: ..."), NOW)
    assert verdict.settled
    assert verdict.unsets >= {"due", "settings"}
    assert verdict.sets["failures"] == verdict.sets["products_failed"]["events"]["count"] == 2


def test_damage_is_not_tried_again_by_itself() -> None:
    verdict = judge(config(), {"due": NOW}, failed(outcome="damaged"), NOW)
    assert (verdict.settled, verdict.count, verdict.unsets) == (True, 1, {"due", "settings", "wait_until"})
    part = after({}, failed(outcome="damaged"))
    assert left_out(config(), "background", part) == {"events": "damaged: process: words"}


def test_a_wrong_configuration_is_not_counted_and_tried_again_when_it_has_changed() -> None:
    part = after(after({}, failed(outcome="misconfigured")), failed(outcome="misconfigured"))
    assert "failures" not in part and "due" not in part
    assert part["products_failed"]["events"]["count"] == 0
    assert left_out(config(), "background", part) == {"events": "misconfigured: process: words"}
    changed = config(strax={"python": ["other"]})
    assert left_out(changed, "background", part) == {}
    # what has nothing to do with how a product is made changes nothing
    assert left_out(config(claim={"max_runs": 3}), "background", part) != {}
    # another product fails before this one was tried with the new settings
    part = after(part, failed("raw"), changed)
    assert "settings" not in part
    assert left_out(changed, "background", part) == {}
    assert "not tried again until the settings change" in str(
        judge(config(), {}, failed("raw", "misconfigured"), NOW).reason
    )


def run(status: Any, part: Part) -> Any:
    document = {
        "_id": 1, "number": 1, "start": NOW, "end": NOW + timedelta(seconds=1), "mode": "background",
        "processing_status": status, "straxflow": {"online": part},
    }  # fmt: skip
    return parse(document, FEWER, "online")


@pytest.mark.parametrize(
    ("status", "asks"),
    [
        ("pending", True),
        ({"status": "pending"}, True),
        ({"status": "pending", "time": NOW, "host": "h", "reason": "tried again by me"}, True),
        ({"status": "pending", "batch": "b1"}, True),  # only the word was changed, of what b1 wrote as failed
        ({"status": "pending", "batch": "b2"}, False),  # what another site, or straxflow sync, wrote
        ({"status": "failed", "batch": "b1"}, False),
        ({"status": "submitted", "batch": "b1"}, False),
        (None, False),
        ("done", False),
    ],
)
def test_a_person_asks(status: Any, asks: bool) -> None:
    part = after(after({}, failed(), FEWER), failed(), FEWER) | {"gave_back": {"status": "failed", "batch": "b1"}}
    assert person_asks(run(status, part), FEWER, "online") == asks
    assert (left_out_of(run(status, part), FEWER, "online") == {}) == asks
    ours = {**part, "gave_back": {"status": "pending", "batch": "b1"}}
    if status == {"status": "pending", "batch": "b1"}:
        assert not person_asks(run(status, ours), FEWER, "online")


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["count", "step", "raw"]), inner),
    max_leaves=4,
)


@given(
    st.dictionaries(st.sampled_from([*REMEMBERED, "gave_back"]), JUNK),
    st.sampled_from(["failed", "damaged", "misconfigured", "retry"]),
)
def test_any_document_is_judged(part: Part, outcome: str) -> None:
    once = after(part, failed(outcome=outcome), FEWER)
    assert isinstance(left_out(FEWER, "background", part), dict)
    assert isinstance(left_out(FEWER, "background", once), dict)
    if outcome == "failed":
        assert once["failures"] >= 1
        assert once["products_failed"]["events"]["count"] >= 1
    assert person_asks(run("pending", part), FEWER, "online")
