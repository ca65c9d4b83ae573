"""What was looked through as it arrived is not read again, unless it changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from straxflow.lab.daq import Daq, RunPlan
from straxflow.livedata import LiveDataDamaged, LiveExpectation, Scans, check_live_data, scans
from straxflow.livedata.records import FileScan, Window, scan_file


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, LiveExpectation]:
    document, summary = Daq(tmp_path, None, "daq").take(RunPlan(932, size_mb=1, seed=1))
    daq = document["daq_config"]
    expected = LiveExpectation(
        "000932", document["start"], document["end"], daq["strax_chunk_length"], daq["strax_chunk_overlap"],
        daq["processing_threads"], length_tolerance_s=0.1,
    )  # fmt: skip
    return summary.folder, expected


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_files_are_looked_through_once_as_they_arrive(
    run: tuple[Path, LiveExpectation], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, expected = run
    read: list[str] = []

    def noted(path: Path, compressor: str, window: Window) -> FileScan:
        read.append(str(path.relative_to(folder)))
        return scan_file(path, compressor, window)

    monkeypatch.setattr(scans, "scan_file", noted)
    with Scans(folder, expected, 2) as some:
        for name in names(folder):
            some.arrived(name)
        report = check_live_data(folder, expected, scans=some)
    assert sorted(read) == [n for n in names(folder) if n[0] == "0" and "_pre/" not in n]
    again = check_live_data(folder, expected)
    assert (report.n_records, report.first_ns, report.last_ns) == (again.n_records, again.first_ns, again.last_ns)


def test_what_changed_since_it_arrived_is_read_again(run: tuple[Path, LiveExpectation]) -> None:
    folder, expected = run
    with Scans(folder, expected) as some:
        for name in names(folder):
            some.arrived(name)
        some.result(names(folder)[0], expected.window(0, overlap=False))
        damaged = folder / names(folder)[0]
        content = damaged.read_bytes()
        damaged.unlink()
        damaged.write_bytes(content[: len(content) // 2])
        with pytest.raises(LiveDataDamaged, match=names(folder)[0]):
            check_live_data(folder, expected, scans=some)


def test_a_file_that_went_away_is_told_as_such(run: tuple[Path, LiveExpectation]) -> None:
    folder, expected = run
    with Scans(folder, expected) as some:
        some.arrived("000000/not_there")
        with pytest.raises(FileNotFoundError):
            some.result("000000/not_there", expected.window(0, overlap=False))
