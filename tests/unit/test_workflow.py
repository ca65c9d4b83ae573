import errno
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from straxflow import claimfile
from straxflow.attempts import AttemptFile
from straxflow.batch import Batch, BatchRun, campaign_name, runs_in_targets
from straxflow.config import Config
from straxflow.config.sections.resources import StepResources
from straxflow.errors import Cause, ClaimLost, StepFailed, StraxflowError, no_fault, quiet_errors
from straxflow.expected import rated_bytes
from straxflow.forks.shared import Servers
from straxflow.owner import Owner
from straxflow.receipts import RunFacts, State, Transferred, write
from straxflow.workflow import Flow

RUN = "000001"
START = datetime(2026, 1, 2, tzinfo=UTC)


def facts(mode: str = "background", **rate: Any) -> RunFacts:
    return RunFacts(run=RUN, number=1, start=START, end=START + timedelta(seconds=100), mode=mode, rate=rate)


def flow(tmp_path: Path, **changes: Any) -> Flow:
    settings = {
        "site": "here",
        "folders": {name: str(tmp_path / name) for name in ("state", "live", "staging")},
        "store": {"folder": str(tmp_path / "store")},
        "daq": {"host": "daq", "folder": str(tmp_path / "daq")},
        "runs": {"min_run_number": 1},
        "strax": {"context": "a:b", "workers": 2},
        "products": {
            "raw": {"from": "live", "resources": {"mem_mb": 100, "mem_mb_per_gb": 50, "threads": 3}},
            "peaks": {"from": "raw", "workers": 5, "modes": {"exclude": ["led"]}},
        },
        "resources": {"transfer": {"runtime_min": 10, "runtime_min_per_gb": 5}, "checksum": {"mem_mb": 700}},
    }
    state = State(tmp_path)
    state.run(RUN).mkdir(parents=True)
    config = Config.model_validate(settings | changes)
    return Flow(config, state, "online", "b", Servers(config, state.folder, "b"), logging.getLogger())


def test_resources_grow_with_the_attempt_and_the_run(tmp_path: Path) -> None:
    chosen = flow(tmp_path)
    write(chosen.state.run(RUN) / "run.json", facts(demo={"avg": 20.0}))
    # 20 MB/s for 100 s
    assert chosen.resource("transfer", "runtime_min", RUN, None, 1, []) == 20
    assert chosen.resource("transfer", "runtime_min", RUN, None, 2, []) == 40
    assert chosen.resource("checksum", "mem_mb", RUN, "raw", 3, []) == 2100
    (chosen.state.run(RUN) / "live").mkdir()
    received = Transferred(
        run=RUN, folder="/", source="daq:/", host="h", algorithm="xxh128", files=[], bytes=4_000_000_000, seconds=1
    )
    write(chosen.state.path(RUN, "live", Transferred), received)
    # what arrived counts, not what was announced; a product's own resources are for its process step
    assert chosen.resource("process", "mem_mb", RUN, "raw", 1, []) == 300
    assert chosen.resource("transfer", "runtime_min", RUN, None, 1, []) == 30


def test_what_was_too_little_for_earlier_invocations_is_added_to(tmp_path: Path) -> None:
    chosen = flow(tmp_path, resources={"max_mem_mb": 5000, "max_runtime_min": 70, "checksum": {"mem_mb": 700}})
    write(chosen.state.run(RUN) / "run.json", facts())
    tries: list[tuple[str, str, Cause | None]] = [
        ("raw", "earlier", "out of memory"), ("raw", "earlier", "out of memory"), ("raw", "earlier", "signal"),
        ("peaks", "earlier", "out of memory"), ("raw", "b", "out of memory"), ("raw", "older", "time-out"),
    ]  # fmt: skip
    for product, batch, cause in tries:
        AttemptFile.start(chosen.state, RUN, product, "checksum", batch, "l").end("killed", "x", 1, cause)
    # this invocation's own attempts snakemake counts
    assert [chosen.resource("checksum", "mem_mb", RUN, "raw", n, []) for n in (1, 2)] == [2100, 2800]
    assert [chosen.resource("checksum", "mem_mb", RUN, "raw", n, []) for n in (5, 6)] == [4900, 5000]
    assert [chosen.resource("checksum", "runtime_min", RUN, "raw", n, []) for n in (1, 2)] == [60, 70]
    assert chosen.resource("transfer", "mem_mb", RUN, None, 1, []) == 1000
    assert chosen.resource("checksum", "mem_mb", RUN, "peaks", 1, []) == 1400


def test_while_the_size_is_unknown_snakemake_asks_again_later(tmp_path: Path) -> None:
    missing = f"runs/{RUN}/run.json"
    with pytest.raises(FileNotFoundError) as caught:
        flow(tmp_path).resource("transfer", "runtime_min", RUN, None, 1, [missing])
    assert caught.value.filename == missing


def test_an_unreadable_receipt_stops_no_planning(tmp_path: Path) -> None:
    chosen = flow(tmp_path)
    (chosen.state.run(RUN) / "live").mkdir()
    chosen.state.path(RUN, "live", Transferred).write_text("{")
    assert chosen.resource("transfer", "runtime_min", RUN, None, 1, []) == 10


def test_threads_are_what_strax_uses(tmp_path: Path) -> None:
    chosen = flow(tmp_path)
    assert (chosen.threads("process", RUN, "raw"), chosen.threads("process", RUN, "peaks")) == (3, 5)


def test_where_a_product_comes_from(tmp_path: Path) -> None:
    chosen = flow(tmp_path)
    assert chosen.source_receipt(RUN, "raw") == f"runs/{RUN}/live/transferred.json"
    assert chosen.source_receipt(RUN, "peaks") == f"runs/{RUN}/raw/processed.json"


def test_what_must_stand_before_a_release(tmp_path: Path) -> None:
    chosen = flow(tmp_path)
    write(chosen.state.run(RUN) / "run.json", facts("led"))
    assert chosen.before_release(RUN) == [f"runs/{RUN}/{p}/registered.json" for p in ("live", "raw")]


def test_a_batch_gives_its_runs_receipts(tmp_path: Path) -> None:
    runs = [BatchRun(run=RUN, number=1, mode="led", token=1)]
    (tmp_path / "b.json").write_text(Batch(batch="b", campaign="online", runs=runs).model_dump_json())
    chosen = flow(tmp_path)
    # the last receipt of a fresh run brings all others
    assert chosen.receipts_of_batch(str(tmp_path / "b.json")) == [f"runs/{RUN}/released.json"]
    (tmp_path / "runs" / RUN / "raw").mkdir()
    (tmp_path / "runs" / RUN / "raw" / "processed.json").touch()
    wanted = chosen.receipts_of_batch(str(tmp_path / "b.json"))
    assert {f"runs/{RUN}/released.json", f"runs/{RUN}/raw/stored.json"} <= set(wanted)
    assert not any("peaks" in path for path in wanted)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.text(), st.none() | st.integers() | st.dictionaries(st.text(), st.none() | st.text()) | st.just({"avg": 2})
    )
)
def test_any_rate_gives_a_size(rate: dict[str, Any]) -> None:
    known = sum(value == {"avg": 2} for value in rate.values())
    assert rated_bytes(facts(**{f"d{i}": value for i, value in enumerate(rate.values())})) == known * 200_000_000


def test_errors_are_shown_as_snakemakes_own() -> None:
    with pytest.raises(RuntimeError, match=r"in words$"), quiet_errors(RuntimeError):
        raise StraxflowError("in words")
    with pytest.raises(KeyError), quiet_errors(RuntimeError):
        raise KeyError("a bug")


def test_trouble_that_is_no_runs_fault_is_told_by_its_number() -> None:
    full = OSError(errno.ENOSPC, "kein Platz", "/disk/file")
    assert no_fault(full) == "free some space"
    behind = StepFailed("could not be removed")
    behind.__cause__ = OSError(errno.EROFS, "nur lesbar", "/disk/file")
    assert no_fault(behind) == "have the disk mounted for writing"
    named = FileNotFoundError(errno.ENOENT, "there is none", "/disk/No space left on device")
    for other in (named, OSError("No space left on device"), StepFailed("No space left on device")):
        assert no_fault(other) is None
    assert no_fault("cp: write: No space left on device") == "free some space"


def test_runs_in_targets() -> None:
    targets = ["runs/000002/raw/stored.json", "/far/runs/000001/released.json", "batches/x.json", "all", "runs/odd"]
    assert runs_in_targets(targets) == ["000001", "000002"]


@pytest.mark.parametrize(("value", "name"), [(None, "online"), ("", "online"), ("v5", "v5"), ("sr1_v2", "sr1_v2")])
def test_campaign(monkeypatch: pytest.MonkeyPatch, value: str | None, name: str) -> None:
    monkeypatch.delenv("STRAXFLOW_CAMPAIGN", raising=False)
    if value is not None:
        monkeypatch.setenv("STRAXFLOW_CAMPAIGN", value)
    assert campaign_name() == name


@pytest.mark.parametrize("value", ["5v", "../up", "a.b", "a b", "$x"])
def test_no_campaign(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("STRAXFLOW_CAMPAIGN", value)
    with pytest.raises(StraxflowError, match="letters, digits and _ only"):
        campaign_name()


BY_RATE = [{"up_to_mb_s": 20, "mem_mb": 200, "threads": 4}, {"up_to_mb_s": 50, "mem_mb": 500}]


@pytest.mark.parametrize(
    ("rate", "mem_mb", "threads"), [(1.0, 200, 4), (20.0, 200, 4), (21.0, 500, 3), (51.0, 100, 3), (None, 100, 3)]
)
def test_resources_follow_the_data_rate(tmp_path: Path, rate: float | None, mem_mb: int, threads: int) -> None:
    own = {"mem_mb": 100, "threads": 3, "by_rate": BY_RATE}
    chosen = flow(tmp_path, products={"raw": {"from": "live", "resources": own}})
    write(chosen.state.run(RUN) / "run.json", facts(**({} if rate is None else {"demo": {"avg": rate}})))
    assert chosen.resource("process", "mem_mb", RUN, "raw", 1, []) == mem_mb
    assert chosen.threads("process", RUN, "raw") == threads


def test_short_jobs_go_to_the_short_partition(tmp_path: Path) -> None:
    table = [{"up_to_min": 60, "partition": "short"}, {"up_to_min": 300, "partition": "day"}, {"partition": "long"}]
    steps = {"process": {"runtime_min": 20, "runtime_min_per_gb": 10}, "checksum": {"runtime_min": 10}}
    chosen = flow(tmp_path, resources={"partitions": table, **steps}, products={"raw": {"from": "live"}})
    # 20 MB/s for 100 s: 2 GB
    write(chosen.state.run(RUN) / "run.json", facts(demo={"avg": 20.0}))

    def partition(attempt: int, *together: str, name: str = "run_{run}") -> str | None:
        return chosen.partition("process", RUN, "raw", attempt, [], dict.fromkeys(together, name))

    assert [partition(attempt) for attempt in (1, 2, 8)] == ["short", "day", "long"]
    # one batch job does all that
    assert partition(1, "process", "checksum") == "short"
    assert partition(1, "process", "checksum", "move_out") == "day"
    steps_of_one = dict.fromkeys(["process", "checksum", "move_out"], "run_{run}")
    assert chosen.partition("checksum", RUN, "raw", 1, [], steps_of_one) == "day"
    # nobody knows of how many runs
    assert partition(1, "process", name="runs") == "long"
    assert flow(tmp_path / "other").partition("process", RUN, "raw", 1, [RUN], {}) is None


def test_tables_must_be_sorted() -> None:
    def refuse(words: str, **resources: Any) -> None:
        with pytest.raises(ValueError, match=words):
            StepResources.model_validate(resources)

    for table in ([{"partition": "a"}, {"partition": "b"}], [{"up_to_min": 3, "partition": "a"}]):
        refuse("the last one, and only that, must have no up_to_min", partitions=table)
    refuse(
        "up_to_min 2 stands behind 3; sort it",
        partitions=[{"up_to_min": 3, "partition": "a"}, {"up_to_min": 2, "partition": "b"}, {"partition": "c"}],
    )
    refuse("up_to_mb_s 20 stands behind 50; sort it", process={"by_rate": BY_RATE[::-1]})


def test_runs_that_were_claimed_first_go_first(tmp_path: Path) -> None:
    runs = [BatchRun(run=f"{n:06d}", number=n, mode="led", token=1) for n in (5, 9, 8)]
    (tmp_path / "b.json").write_text(Batch(batch="b", campaign="online", runs=runs).model_dump_json())
    chosen = flow(tmp_path)
    chosen.receipts_of_batch(str(tmp_path / "b.json"))
    assert [chosen.priority(run) for run in ("000005", "000009", "000008", "000001")] == [3, 2, 1, 0]


def test_no_job_is_started_whose_run_was_taken_over(tmp_path: Path) -> None:
    chosen = flow(tmp_path)
    claim = claimfile.ClaimFile(run=RUN, token=2, batch="theirs", owner=Owner.current().as_dict())
    claimfile.write(chosen.state, claim)
    # before it claims anything, and in a preview, an invocation judges no claim
    assert chosen.threads("register", RUN) == 1
    chosen.holds_claims = True
    with pytest.raises(ClaimLost, match=f"run {RUN} was taken over by invocation theirs"):
        chosen.threads("register", RUN)
