import json
from pathlib import Path

import pytest

from straxflow import attempts
from straxflow.attempts import AttemptFile, deciding, outcome_of
from straxflow.errors import ClaimLost, Damaged, StepFailed
from straxflow.livedata import NotComplete
from straxflow.owner import Owner
from straxflow.receipts import State, now
from straxflow.slurm import Verdict


def begin(state: State, step: str = "process", batch: str = "mine", product: str = "raw") -> AttemptFile:
    return AttemptFile.start(state, "000001", product, step, batch, "logs/x.log")


def abandon(file: AttemptFile, **owner: object) -> None:
    """As if its process were gone."""
    content = json.loads(file.path.read_text())
    content["owner"] |= owner
    file.path.write_text(json.dumps(content))


def only(state: State) -> attempts.Attempt:
    (file,) = attempts.all_of(state, "000001")
    return file.attempt


def test_an_attempt_stands_from_its_start(tmp_path: Path) -> None:
    state = State(tmp_path)
    file = begin(state)
    assert only(state).ended is None
    assert Owner.from_dict(only(state).owner) == Owner.current()
    file.end("failed", "for a reason", 1)
    done = only(state)
    assert (done.outcome, done.reason, done.exit) == ("failed", "for a reason", 1)
    assert done.ended is not None
    assert done.seconds is not None and 0 <= done.seconds < 10
    assert done.cpu_seconds is not None and done.cpu_seconds > 0
    assert done.peak_rss_mb is not None and 10 < done.peak_rss_mb < 10_000


def test_of_two_copies_of_a_job_the_one_that_made_the_receipt_decides(tmp_path: Path) -> None:
    state = State(tmp_path)
    first, second = begin(state), begin(state)
    second.end("failed", "beside the other", 1)
    first.end("ok", exit_code=0)
    assert [a.outcome for a in deciding(f.attempt for f in attempts.all_of(state, "000001")).values()] == ["ok"]
    begin(state).end("failed", "on its own", 1)
    (last,) = deciding(f.attempt for f in attempts.all_of(state, "000001")).values()
    assert last.reason == "on its own"
    assert deciding((f.attempt for f in attempts.all_of(state, "000001")), since=now()) == {}


def test_attempts_come_oldest_first_and_unreadable_ones_are_passed_over(tmp_path: Path) -> None:
    state = State(tmp_path)
    for step, product in (("transfer", "live"), ("process", "raw"), ("checksum", "raw"), ("process", "peaks")):
        begin(state, step, product=product).end("ok", exit_code=0)
    (attempts.folder(state, "000001", "raw") / "00-odd.json").write_text("{")
    found = [(f.attempt.step, f.attempt.product) for f in attempts.all_of(state, "000001")]
    assert found == [("transfer", "live"), ("process", "raw"), ("checksum", "raw"), ("process", "peaks")]


def test_an_open_attempt_of_the_dead_is_completed_that_of_the_living_not(tmp_path: Path) -> None:
    state = State(tmp_path)
    file = begin(state)
    assert attempts.complete_open(state, "000001") == []
    assert only(state).ended is None
    abandon(file, start=1)
    (completed,) = attempts.complete_open(state, "000001")
    assert completed == only(state)
    assert completed.outcome == "killed"
    assert "its process is gone" in str(completed.reason)
    assert attempts.complete_open(state, "000001") == []


def test_what_ended_well_while_it_was_looked_at_stays_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = begin(State(tmp_path))

    def ends_and_is_dead(_: Owner) -> bool:
        file.end("ok", exit_code=0)
        return True

    monkeypatch.setattr(Owner, "is_dead", ends_and_is_dead)
    assert attempts.complete_open(State(tmp_path), "000001") == []
    assert only(State(tmp_path)).outcome == "ok"


def test_of_an_ended_invocation_even_on_another_host(tmp_path: Path) -> None:
    state = State(tmp_path)
    abandon(begin(state), host="elsewhere")
    assert attempts.complete_open(state, "000001", "other") == []
    assert len(attempts.complete_open(state, "000001", "mine")) == 1


def test_what_is_cancelled_because_a_person_stopped_its_invocation_did_not_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts = {"1": Verdict("CANCELLED", "cancelled"), "2": Verdict("TIMEOUT", "time-out"), "3": None}
    monkeypatch.setattr(attempts, "verdict_on", verdicts.get)
    for asked, outcomes in ((True, ["stopped", "killed", "stopped"]), (False, ["killed"] * 3)):
        state = State(tmp_path / str(asked))
        for job in verdicts:
            monkeypatch.setenv("STRAXFLOW_JOB_ID", job)
            begin(state)
        attempts.complete_open(state, "000001", "mine", asked)
        assert [file.attempt.outcome for file in attempts.all_of(state, "000001")] == outcomes


def test_a_killed_job_of_an_invocation_within_an_allocation_that_lives_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = State(tmp_path)
    monkeypatch.setattr(attempts, "verdict_on", lambda _: Verdict("RUNNING", running=True))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    file = begin(state)
    assert attempts.complete_open(state, "000001", "mine") == []
    abandon(file, start=1)
    # within a batch job that still runs Slurm may tell more at its end
    assert attempts.complete_open(state, "000001") == []
    assert [a.outcome for a in attempts.complete_open(state, "000001", "mine")] == ["killed"]


def test_what_a_person_stopped_stays_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = State(tmp_path)
    monkeypatch.setattr(attempts, "verdict_on", lambda _: Verdict("CANCELLED", "cancelled"))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    begin(state).end("stopped", "stopped by SIGTERM", 143)
    attempts.complete_open(state, "000001", "mine", asked=True)
    attempts.complete_open(state, "000001")
    assert only(state).outcome == "stopped"


def test_what_the_same_invocation_cannot_better(tmp_path: Path) -> None:
    state = State(tmp_path)

    def hopeless(batch: str = "mine", step: str = "process") -> bool:
        return attempts.hopeless(state, "000001", "raw", step, batch) is not None

    assert not hopeless()
    begin(state).end("failed", "x", 1)
    assert not hopeless()
    begin(state).end("damaged", "x", 1)
    assert hopeless()
    assert not hopeless("another")
    assert not hopeless(step="checksum")


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ClaimLost("x"), "claim lost"),
        (NotComplete("x"), "retry"),
        (Damaged("x"), "damaged"),
        (StepFailed("x"), "failed"),
        (ValueError("x"), "failed"),
    ],
)
def test_how_an_error_is_filed(error: Exception, outcome: str) -> None:
    assert outcome_of(error) == outcome
