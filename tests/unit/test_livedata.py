"""The live-data check against every kind of damage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import lz4.frame
import numpy as np
import pytest
import strax

from straxflow.errors import ConfigError, Damaged, Retryable
from straxflow.lab.daq import RunPlan, write_run
from straxflow.lab.daq.writer import compress
from straxflow.livedata import LiveDataDamaged, LiveExpectation, NotComplete, check_live_data, is_complete
from straxflow.livedata.records import record_dtype

START = datetime(2026, 11, 1, tzinfo=UTC)
# seven chunks of 0.2 + 0.02 s, the last one ends within its overlap
PLAN = RunPlan(
    932,
    "calibration",
    duration_s=1.535,
    rate_hz=300,
    chunk_length_s=0.2,
    chunk_overlap_s=0.02,
    processing_threads={"reader0": 2, "reader1": 1},
)
EXPECTED = LiveExpectation(
    run="000932",
    start=START,
    end=START + timedelta(seconds=PLAN.seconds),
    chunk_length_s=0.2,
    chunk_overlap_s=0.02,
    processing_threads=PLAN.processing_threads,
    length_tolerance_s=0.004,
)


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("daq"), PLAN, start=START).folder


@pytest.fixture
def run(taken: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(taken, tmp_path / taken.name))


def file_of(run: Path, folder: str, thread: int = 0) -> Path:
    return sorted((run / folder).iterdir())[thread]


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray | None]) -> None:  # type: ignore[type-arg]
    """Change the records of a file, in a good stream."""
    records = np.frombuffer(lz4.frame.decompress(path.read_bytes()), record_dtype(110)).copy()
    changed = change(records)
    path.write_bytes(compress((records if changed is None else changed).tobytes(), "lz4"))


def problems(run: Path, expected: LiveExpectation = EXPECTED) -> dict[str, str]:
    with pytest.raises(LiveDataDamaged) as error:
        check_live_data(run, expected)
    assert isinstance(error.value, Damaged)
    assert "run 000932" in str(error.value)
    assert str(error.value).count("\n") < 20
    told: dict[str, str] = {}
    for problem in error.value.problems:
        so_far = f"{told[problem.path]} / " if problem.path in told else ""
        told[problem.path] = f"{so_far}{problem.found}; {problem.expected}"
    return told


def test_record_dtype_is_strax_own() -> None:
    for n in (110, 64):
        theirs = strax.raw_record_dtype(samples_per_record=n)
        assert record_dtype(n) == np.dtype([(name[1], *rest) for name, *rest in theirs])
        assert record_dtype(n).itemsize == 24 + 2 * n


@pytest.mark.parametrize("workers", [1, 3])
def test_whole_run(run: Path, workers: int) -> None:
    report = check_live_data(run, EXPECTED, workers)
    assert report.n_chunks == 7
    assert report.first_ns is not None and report.last_ns is not None
    assert 0 <= report.first_ns < report.last_ns < PLAN.seconds * 1e9
    main_and_post = [p for p in run.glob("0*/*") if not p.parent.name.endswith("_pre")]
    assert report.n_records == sum(len(strax.load_file(str(p), "lz4", record_dtype(110))) for p in main_and_post)
    assert report.bytes_plain == report.n_records * 244
    assert any("_pre without its chunk" in oddity for oddity in report.oddities)
    assert is_complete(run) and is_complete(run, PLAN.processing_threads)


@pytest.mark.parametrize("suffix", ["", "_pre", "_post"])
def test_missing_folder_in_the_middle(run: Path, suffix: str) -> None:
    shutil.rmtree(run / f"000003{suffix}")
    assert problems(run).keys() == {f"000003{suffix}"}


def test_missing_chunk_with_its_overlaps(run: Path) -> None:
    for name in ("000003", "000003_post", "000004_pre"):
        shutil.rmtree(run / name)
    assert problems(run).keys() == {"000003", "000003_post"}


@pytest.mark.parametrize("n", [1, 3])
def test_missing_last_chunks(run: Path, n: int) -> None:
    for k in range(7 - n, 7):
        for name in (f"{k:06d}", f"{k:06d}_post", f"{k + 1:06d}_pre"):
            shutil.rmtree(run / name)
    assert problems(run) == {".": f"{7 - n} chunks; 7 in a run of 1.5 s"}


@pytest.mark.parametrize("folder", ["000002", "000002_pre", "000002_post"])
def test_missing_file(run: Path, folder: str) -> None:
    path = file_of(run, folder)
    path.unlink()
    assert problems(run).keys() == {f"{folder}/{path.name}"}


def test_thread_missing_everywhere(run: Path) -> None:
    name = file_of(run, "THE_END").name
    for path in run.glob(f"0*/{name}"):
        path.unlink()
    # nothing says that this thread ever had data, but the report tells
    assert any("in none" in oddity for oddity in check_live_data(run, EXPECTED).oddities)


def test_empty_files_of_a_silent_thread_are_legal(run: Path) -> None:
    before = check_live_data(run, EXPECTED)
    path = file_of(run, "000002")
    lost = len(strax.load_file(str(path), "lz4", record_dtype(110)))
    path.write_bytes(b"")
    for folder in ("000004_post", "000005_pre"):
        lost += len(strax.load_file(str(file_of(run, folder)), "lz4", record_dtype(110))) * ("post" in folder)
        file_of(run, folder).write_bytes(b"")
    report = check_live_data(run, EXPECTED)
    assert report.n_records == before.n_records - lost
    assert "2 empty files of silent threads" in report.oddities


def test_threads_may_end_in_different_chunks(run: Path) -> None:
    name = file_of(run, "000006").name
    for folder in ("000006", "000006_post", "000007_pre"):
        (run / folder / name).unlink()
    report = check_live_data(run, EXPECTED)
    assert "threads end in different chunks (1 in 000005, 2 in 000006)" in report.oddities


@pytest.mark.parametrize("compressor", ["lz4", "zstd", "blosc"])
@pytest.mark.parametrize("keep", [3, -1, 0.5])
def test_truncated(tmp_path: Path, compressor: str, keep: float) -> None:
    run = write_run(tmp_path, replace(PLAN, compressor=compressor), start=START).folder
    path = file_of(run, "000003")
    data = path.read_bytes()
    path.write_bytes(data[: int(keep) if keep in (3, -1) else len(data) // 2])
    assert "whole compressed stream" in problems(run, replace(EXPECTED, compressor=compressor))[f"000003/{path.name}"]


@pytest.mark.parametrize("compressor", ["lz4", "zstd", "blosc"])
def test_something_behind_the_stream(tmp_path: Path, compressor: str) -> None:
    run = write_run(tmp_path, replace(PLAN, compressor=compressor), start=START).folder
    path = file_of(run, "000003")
    for more in (b"\0", path.read_bytes()):
        path.write_bytes(path.read_bytes() + more)
        assert "something follows" in problems(run, replace(EXPECTED, compressor=compressor))[f"000003/{path.name}"]


def test_wrong_compressor(run: Path) -> None:
    assert len(problems(run, replace(EXPECTED, compressor="zstd"))) >= 7
    with pytest.raises(ConfigError, match="snappy"):
        check_live_data(run, replace(EXPECTED, compressor="snappy"))


@pytest.mark.parametrize("folder", ["000002_post", "000003_pre"])
def test_twins_that_differ(run: Path, folder: str) -> None:
    path = file_of(run, folder)
    rewrite(path, lambda r: r[:-5])
    assert "differs from 000002_post" in problems(run)[f"000003_pre/{path.name}"]


def test_broken_pre_is_named_as_the_bad_twin(run: Path) -> None:
    path = file_of(run, "000003_pre")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(LiveDataDamaged) as error:
        check_live_data(run, EXPECTED)
    assert {p.path for p in error.value.problems} == {f"000003_pre/{path.name}"}
    assert len(error.value.problems) == 2


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("time", 10**15, "times in"),
        ("time", -1, "times in"),
        ("length", 111, "length"),
        ("length", 0, "length"),
        ("dt", 0, "dt"),
        ("channel", -3, "channels"),
        ("channel", 12_000, "channels"),
        ("pulse_length", 0, "length"),
        ("record_i", 9, "length"),
        ("baseline", -1, "baseline"),
        ("data", -1, "samples"),
        ("data", 16_384, "samples"),
    ],
)
def test_impossible_record_in_a_good_stream(run: Path, field: str, value: int, told: str) -> None:
    path = file_of(run, "000001")

    def change(records: np.ndarray) -> None:  # type: ignore[type-arg]
        records[field][40] = value

    rewrite(path, change)
    found = problems(run)
    assert found.keys() == {f"000001/{path.name}"}
    with pytest.raises(LiveDataDamaged, match=told):
        check_live_data(run, EXPECTED)


def test_lost_fragment(run: Path) -> None:
    path = file_of(run, "000001")
    rewrite(path, lambda r: np.delete(r, np.flatnonzero(r["record_i"] == 1)[5]))
    assert "all fragments" in problems(run)[f"000001/{path.name}"]


def test_half_a_record(run: Path) -> None:
    path = file_of(run, "000001")
    path.write_bytes(compress(lz4.frame.decompress(path.read_bytes())[:-100], "lz4"))
    assert "244-byte records" in problems(run)[f"000001/{path.name}"]


@pytest.mark.parametrize("pair", [("000001", "000004"), ("000001_post", "000003_post"), ("000002", "000002_post")])
def test_swapped_folders(run: Path, pair: tuple[str, str]) -> None:
    a, b = (run / name for name in pair)
    a.rename(run.parent / "aside")
    b.rename(a)
    (run.parent / "aside").rename(b)
    assert {p.split("/")[0] for p in problems(run)} >= set(pair) - {"000003_post", "000001_post"}


def test_swapped_files(run: Path) -> None:
    a, b = file_of(run, "000001"), file_of(run, "000002")
    one, two = a.read_bytes(), b.read_bytes()
    a.write_bytes(two)
    b.write_bytes(one)
    assert len(problems(run)) == 2


def test_surplus_thread(run: Path) -> None:
    shutil.copy(file_of(run, "000001"), run / "000001" / "reader0_17")
    assert problems(run).keys() == {"000001/reader0_17"}


def test_file_of_a_foreign_reader(run: Path) -> None:
    for name in ("000001/reader9_1", "THE_END/reader9_1"):
        shutil.copy(file_of(run, "000001"), run / name)
    assert "THE_END/reader9_1" in problems(run)


def test_duplicated_chunk_at_the_end(run: Path) -> None:
    shutil.copytree(run / "000003", run / "000007")
    assert problems(run) == {"000007": "begins after the run's end; at most 7 chunks"}


def test_run_copied_into_itself(run: Path) -> None:
    shutil.copytree(run, run / "000932")
    assert problems(run).keys() == {"000932"}


@pytest.mark.parametrize("name", ["000003 (copy)", "000932", "3", "0000010", "notes", "000003_past"])
def test_foreign_folder(run: Path, name: str) -> None:
    (run / name).mkdir()
    assert name in problems(run)


def test_wrong_kinds(run: Path) -> None:
    (run / "README").write_text("")
    shutil.move(run / "000001", run.parent / "elsewhere")
    (run / "000001").symlink_to(run.parent / "elsewhere")
    inside = file_of(run, "000002")
    inside.unlink()
    inside.mkdir()
    other = file_of(run, "000004")
    other.rename(run.parent / "a file")
    other.symlink_to(run.parent / "a file")
    found = problems(run)
    assert found.keys() >= {"README", "000001", f"000002/{inside.name}", f"000004/{other.name}"}
    assert "symbolic link" in found["000001"]


def test_a_pre_before_the_first_chunk(run: Path) -> None:
    shutil.copytree(run / "000001_pre", run / "000000_pre")
    assert problems(run).keys() == {"000000_pre"}


def test_still_being_written(run: Path) -> None:
    file_of(run, "THE_END").unlink()
    (run / "000006_temp" / "reader0_1").touch()
    with pytest.raises(NotComplete, match="lists 2 threads") as error:
        check_live_data(run, EXPECTED)
    assert isinstance(error.value, Retryable)
    assert not is_complete(run) and not is_complete(run, PLAN.processing_threads)
    shutil.rmtree(run / "THE_END")
    with pytest.raises(NotComplete):
        check_live_data(run, EXPECTED)
    assert not is_complete(run)
    with pytest.raises(NotComplete, match="no folder"):
        check_live_data(run.parent / "nowhere", EXPECTED)
    assert not is_complete(run.parent / "nowhere")


def test_temp_file_after_the_end(run: Path) -> None:
    (run / "000006_temp" / "reader0_1").touch()
    assert problems(run).keys() == {"000006_temp/reader0_1"}
    assert not is_complete(run)


def test_wrong_run_length(run: Path) -> None:
    def of(seconds: float) -> LiveExpectation:
        return replace(EXPECTED, end=START + timedelta(seconds=seconds))

    assert problems(run, of(2.5)) == {".": "7 chunks; 12 in a run of 2.5 s"}
    late = {f"00000{k}{suffix}" for k in (5, 6) for suffix in ("", "_post")} | {"000006_pre", "000007_pre"}
    assert problems(run, of(1.0)).keys() == late


def test_wrong_thread_counts_in_the_document(run: Path) -> None:
    expected = replace(EXPECTED, processing_threads={"reader0": 1, "reader1": 1})
    assert problems(run, expected)["THE_END"] == "2 threads of reader0; 1"


def test_all_problems_at_once_in_one_screen(run: Path) -> None:
    for path in run.glob("00000[1-6]/*"):
        path.write_bytes(b"nonsense")
    found = problems(run)
    assert len(found) == 18
    with pytest.raises(LiveDataDamaged, match="and 3 more"):
        check_live_data(run, EXPECTED)


def test_unreadable_file(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file_of(run, "000001")
    plain = Path.open

    def refuse(self: Path, *args: object, **kwargs: object) -> object:
        if self == path:
            raise OSError(5, "Input/output error")
        return plain(self, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refuse)
    assert "Input/output error" in problems(run)[f"000001/{path.name}"]
