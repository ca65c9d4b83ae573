"""The simulated DAQ: what it writes, that it repeats itself, and the documents."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from straxflow.lab.daq import MODES, Daq, RunPlan, write_run
from straxflow.lab.daq.__main__ import main
from straxflow.lab.daq.waveforms import Detector
from straxflow.livedata import LiveExpectation, check_live_data

START = datetime(2026, 11, 1, tzinfo=UTC)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


class Collection:
    """Keeps what the DAQ writes, in the order of writing."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def insert_one(self, document: dict[str, Any]) -> None:
        self.calls.append(("insert", document))
        document["_id"] = "an id"

    def update_one(self, query: dict[str, Any], change: dict[str, Any]) -> None:
        self.calls.append(("update", {**query, **change}))


def test_same_plan_same_bytes(tmp_path: Path) -> None:
    plan = RunPlan(7, size_mb=1)
    one = write_run(tmp_path / "a", plan, start=START)
    write_run(tmp_path / "b", plan, start=START + timedelta(days=1))
    other = write_run(tmp_path / "c", RunPlan(7, size_mb=1, seed=2), start=START)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert set(tree(one.folder).values()) & set(tree(other.folder).values()) == {b"...my only friend\n"}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("compressor", ["lz4", "blosc", "zstd"])
def test_every_mode_is_whole(tmp_path: Path, mode: str, compressor: str) -> None:
    plan = RunPlan(12, mode, size_mb=2, compressor=compressor, processing_threads={"reader0": 2, "reader_b": 1})
    document, summary = Daq(tmp_path).take(plan)
    report = check_live_data(
        summary.folder,
        LiveExpectation(
            "000012",
            document["start"],
            document["end"],
            plan.chunk_length_s,
            plan.chunk_overlap_s,
            plan.processing_threads,
            plan.samples_per_record,
            plan.compressor,
            length_tolerance_s=0.1,
        ),
    )
    assert report.n_records == summary.records
    assert report.bytes_on_disk == summary.disk_bytes
    assert report.n_chunks == summary.chunks == 4
    assert report.bytes_plain == pytest.approx(2e6, rel=0.15)


@pytest.mark.parametrize("mode", MODES)
def test_waveforms_are_possible(mode: str) -> None:
    plan = RunPlan(3, mode, size_mb=3, duration_s=1, chunk_length_s=0.9, chunk_overlap_s=0.1)
    records, _ = Detector(plan).period(0)
    assert records["time"].min() >= 0
    assert (np.diff(records["time"][records["record_i"] == 0]) >= 0).all()
    inside = np.arange(110) < records["length"][:, None]
    assert records["data"][inside].min() >= 0
    assert (records["data"][~inside] == 0).all()
    assert np.abs(np.median(records["data"][inside]) - 16_000) < 100
    if mode != "led":
        assert records["data"][inside].min() < 15_000
    for channel in range(plan.n_channels):
        mine = np.sort(records[records["channel"] == channel], order="time")
        ends = mine["time"] + mine["length"] * mine["dt"]
        assert (mine["time"][1:] >= ends[:-1]).all(), "pulses of a channel overlap"


def test_overlaps_have_a_quiet_microsecond_even_at_the_highest_rate() -> None:
    plan = RunPlan(3, "calibration", duration_s=1, rate_hz=10_000, chunk_length_s=0.5, chunk_overlap_s=0.01)
    records, _ = Detector(plan).period(0)
    overlap = np.sort(records[records["time"] >= 0.5e9 + 1100], order="time")
    ends = np.maximum.accumulate(overlap["time"] + overlap["length"] * overlap["dt"])
    assert (overlap["time"][1:] - ends[:-1] >= 1000).any()


def test_document_at_the_start_and_at_the_end(tmp_path: Path) -> None:
    collection = Collection()
    plan = RunPlan(5, "led", size_mb=0.5)
    document, _ = Daq(tmp_path, collection, host="xams-daq", detector="xams").take(plan)  # type: ignore[arg-type]
    (_, first), (_, last) = collection.calls
    assert first["end"] is None and "rate" not in first and first["tags"] == []
    assert first["data"][0] | {"time": None} == {
        "type": "live",
        "host": "xams-daq",
        "location": str(tmp_path),
        "by": "dispatcher",
        "time": None,
    }
    assert first["daq_config"]["strax_output_path"] == str(tmp_path)
    assert last["number"] == 5 and last["$set"].keys() == {"end", "rate"}
    assert last["$set"]["rate"]["xams"].keys() == {"avg", "max"}
    assert "_id" not in document
    assert document["end"] - document["start"] == pytest.approx(
        timedelta(seconds=plan.seconds), abs=timedelta(milliseconds=1)
    )
    assert document["end"] <= datetime.now(UTC) + timedelta(milliseconds=1)


def test_numbers_go_on(tmp_path: Path) -> None:
    daq = Daq(tmp_path)
    assert daq.next_number(900) == 900
    daq.take(RunPlan(932, "led", size_mb=0.1))
    assert daq.next_number(900) == 933


def test_real_time_takes_its_time(tmp_path: Path) -> None:
    assert write_run(tmp_path, RunPlan(1, "led", duration_s=0.5), realtime=True).seconds >= 0.5


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "darkness", "size_mb": 1},
        {},
        {"size_mb": 1, "duration_s": 1, "rate_hz": 1},
        {"duration_s": -1},
        {"size_mb": 1e6, "duration_s": 1},
        {"duration_s": 1, "chunk_overlap_s": 1e-6},
    ],
)
def test_impossible_plans(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        RunPlan(1, **wrong)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--folder", str(tmp_path), "--runs", "2", "--modes", "led", "calibration", "--size-mb", "0.5"]
    assert main(args) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[1:3] for line in out] == [["000001", "led"], ["000002", "calibration"]]
    assert (tmp_path / "000002" / "THE_END").is_dir()
