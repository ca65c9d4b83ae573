from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strax
from hypothesis import given
from hypothesis import strategies as st

from straxflow.detectors.demo import PLUGINS, context
from straxflow.detectors.demo.pulses import baselines
from straxflow.detectors.demo.reader import ARTIFICIAL_DEADTIME_CHANNEL, ArtificialDeadtimeInserted, DAQReader
from straxflow.lab.daq import RunPlan, run_document, write_run

START = datetime(2026, 11, 20, 12, tzinfo=UTC)
T0 = int(START.timestamp()) * 10**9
DTYPE = np.dtype(strax.raw_record_dtype(110))


def take(folder: Path, mode: str = "background", **how: Any) -> tuple[strax.Context, RunPlan]:
    """Take a run of 2.5 s in chunks of 1 s; give a context that reads it."""
    plan = RunPlan(7, mode, **({"duration_s": 2.5, "chunk_length_s": 0.9, "chunk_overlap_s": 0.1} | how))
    write_run(folder / "live", plan, start=START)
    facts = {**run_document(plan, folder, "daq", "demo", START), "run": "000007"}
    run = context(facts, str(folder / "live"), None)
    run.storage = [strax.DataDirectory(str(folder / "data"))]
    return run, plan


def get(run: strax.Context, data_type: str) -> Any:
    return run.get_array("000007", data_type, progress_bar=False)


@pytest.fixture(scope="module")
def background(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[strax.Context, RunPlan]]:
    yield take(tmp_path_factory.mktemp("background"), rate_hz=1000.0)


def live_records(folder: Path, compressor: str) -> Any:
    """All records of a run's live data, an overlap counted once, read file by file."""
    files = [f for d in (folder / "000007").glob("*[0-9]") for f in d.iterdir()]
    files += [f for d in (folder / "000007").glob("*_post") for f in d.iterdir()]
    parts = [strax.load_file(str(f), compressor, DTYPE) for f in files if f.stat().st_size]
    records = np.concatenate(parts)
    return records[np.lexsort((records["channel"], records["time"]))]


@pytest.mark.parametrize("compressor", ["lz4", "blosc", "zstd"])
@pytest.mark.parametrize("threads", [{"reader0": 1}, {"reader0": 2, "reader1": 1}])
def test_every_record_once(tmp_path: Path, compressor: str, threads: dict[str, int]) -> None:
    run, _ = take(tmp_path, compressor=compressor, processing_threads=threads)
    expected = live_records(tmp_path / "live", compressor)
    expected["time"] += T0
    np.testing.assert_array_equal(get(run, "raw_records"), expected)


def test_a_silent_run_and_a_run_that_ends_in_an_overlap(tmp_path: Path) -> None:
    run, _ = take(tmp_path / "silent", rate_hz=0.0, dark_rate_hz=2.0)
    assert len(get(run, "raw_records")) == len(live_records(tmp_path / "silent/live", "lz4"))
    assert len(get(run, "events")) == 0
    # redax leaves the _pre of a chunk that never came
    run, _ = take(tmp_path / "overlap", duration_s=1.97, rate_hz=2000.0)
    assert (tmp_path / "overlap/live/000007/000002_pre").exists()
    assert not (tmp_path / "overlap/live/000007/000002").exists()
    assert len(get(run, "raw_records")) == len(live_records(tmp_path / "overlap/live", "lz4"))


def test_records_out_of_their_chunk_are_refused(tmp_path: Path) -> None:
    run, _ = take(tmp_path)
    first, second = (sorted((tmp_path / "live/000007" / name).iterdir()) for name in ("000000", "000001"))
    first[0].write_bytes(second[0].read_bytes())
    with pytest.raises(ValueError, match="should hold records that start in"):
        get(run, "raw_records")


def test_physics(background: tuple[strax.Context, RunPlan]) -> None:
    run, plan = background
    peaks, events = get(run, "peaks"), get(run, "events")
    s1, s2, dark = (peaks[peaks["type"] == t] for t in (1, 2, 0))
    assert len(events) == pytest.approx(plan.event_rate_hz * plan.seconds, rel=0.1)
    assert len(s1) == pytest.approx(len(s2), rel=0.02)
    # a dark count is one photo-electron in one channel
    assert np.median(dark["area"]) == pytest.approx(1, abs=0.2)
    assert s1["width"].max() < s2["width"].min()
    assert np.median(s2["area_fraction_top"]) > np.median(s1["area_fraction_top"])
    drift = events["drift_time"]
    assert np.mean(np.isnan(drift)) < 0.02
    assert 5_000 < np.nanmin(drift) < np.nanmax(drift) < 63_000
    assert np.all(events["z"][~np.isnan(drift)] < 0)
    assert np.all(events["cs2"] >= events["s2_area"])


def test_two_makings_give_the_same_bytes(tmp_path: Path) -> None:
    folders = []
    for name in "ab":
        run, _ = take(tmp_path / name)
        run.make("000007", ("events"))
        folders.append(tmp_path / name / "data")
    made = [{str(p.relative_to(f)): p.read_bytes() for p in f.rglob("*-0*") if p.is_file()} for f in folders]
    assert made[0] == made[1]
    assert len(made[0]) > 3


def test_led_calibration(tmp_path: Path) -> None:
    run, plan = take(tmp_path, mode="led", dark_rate_hz=0.0)
    led = get(run, "led_calibration")
    assert len(led) == pytest.approx(plan.n_channels * plan.event_rate_hz * plan.seconds, rel=0.02)
    # on average one photo-electron a flash (90 counts x samples), a third of the flashes gives none
    assert led["area"].mean() == pytest.approx(90, rel=0.2)
    assert np.mean(led["amplitude"] < 15) == pytest.approx(np.exp(-1), abs=0.1)


def test_compressors_and_clock_never_change_a_lineage() -> None:
    run = {"run": "000007", "start": "2026-11-20T12:00:00Z"}
    names = [strax.to_str_tuple(p.provides)[0] for p in PLUGINS]
    plain = context(run, None, None)
    other = context({**run, "run": "000008"}, None, None, compressors=dict.fromkeys(names, "zstd"), safe_break=2000)
    assert [plain.key_for("0", n).lineage for n in names] == [other.key_for("0", n).lineage for n in names]
    assert context(run, None, None, peak_gap=1).key_for("0", "peaks").lineage != plain.key_for("0", "peaks").lineage
    with pytest.raises(ValueError, match="peak"):
        context(run, None, None, compressors={"peak": "zstd"})


def reader(**options: int) -> Any:
    plugin = DAQReader()
    plugin.config = {"record_length": 110, "max_sampling_time": 10, "safe_break": 1000} | options
    plugin.dtype = DTYPE
    return plugin


def records_at(times: list[int]) -> Any:
    records = np.zeros(len(times), DTYPE)
    records["time"], records["length"], records["dt"] = sorted(times), 110, 10
    return records


@given(st.lists(st.integers(0, 50_000), max_size=60))
def test_a_cut_splits_an_overlap_without_loss_or_marks_the_loss(times: list[int]) -> None:
    records = records_at([10 * t for t in times])
    start, end = 0, 500_000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_args, **_kwargs: None)
        cut, before, after = reader()._cut(records, start, end)
    assert start < cut < end
    dead = [part[part["channel"] == ARTIFICIAL_DEADTIME_CHANNEL] for part in (before, after)]
    if not len(dead[0]):
        np.testing.assert_array_equal(np.concatenate([before, after]), records)
    else:
        assert dead[0]["time"][0] + dead[0]["length"][0] * 10 == dead[1]["time"][0] == cut
        before = before[:-1]
    assert np.all(strax.endtime(before) <= cut)
    assert np.all(after["time"] >= cut)


def test_dense_data_give_dead_time() -> None:
    with pytest.warns(ArtificialDeadtimeInserted):
        cut, before, after = reader()._cut(records_at(list(range(0, 100_000, 1000))), 0, 100_000)
    assert cut == 99_000
    assert (len(before), before["channel"][-1], len(after)) == (97 + 1, ARTIFICIAL_DEADTIME_CHANNEL, 1)


def test_later_fragments_take_the_baseline_of_their_pulse() -> None:
    raw = np.zeros(5, DTYPE)
    raw["time"] = [0, 500, 1100, 2200, 9000]
    raw["channel"] = [0, 1, 0, 0, 0]
    raw["record_i"] = [0, 0, 1, 2, 0]
    raw["data"] = np.array([100, 200, 7, 7, 300])[:, None]
    assert baselines(raw, 16).tolist() == [100, 200, 100, 100, 300]
