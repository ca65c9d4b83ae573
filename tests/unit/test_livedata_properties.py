"""The live-data check against damage that hypothesis thinks of."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path

import lz4.frame
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_livedata import EXPECTED, PLAN, START

from straxflow.lab.daq import RunPlan, write_run
from straxflow.lab.daq.writer import compress
from straxflow.livedata import LiveDataDamaged, LiveExpectation, check_live_data
from straxflow.livedata.records import record_dtype, scan_file
from straxflow.livedata.streams import COMPRESSORS, BadStream, iter_plain


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("daq"), PLAN, start=START).folder


@settings(max_examples=25, deadline=None)
@given(
    mode=st.sampled_from(["background", "calibration", "led"]),
    compressor=st.sampled_from(COMPRESSORS),
    duration=st.floats(0.05, 1.0),
    rate=st.floats(0, 500),
    dark=st.floats(0, 100),
    channels=st.integers(1, 9),
    threads=st.dictionaries(st.sampled_from(["reader0", "reader1", "r_2"]), st.integers(1, 3), min_size=1),
    payload=st.integers(20, 300).map(lambda n: 2 * n),
    seed=st.integers(0, 1000),
)
def test_whatever_the_daq_takes_passes(
    mode: str,
    compressor: str,
    duration: float,
    rate: float,
    dark: float,
    channels: int,
    threads: dict[str, int],
    payload: int,
    seed: int,
) -> None:
    plan = RunPlan(
        1,
        mode,
        duration_s=duration,
        rate_hz=rate,
        dark_rate_hz=dark,
        n_channels=channels,
        compressor=compressor,
        processing_threads=threads,
        fragment_payload_bytes=payload,
        seed=seed,
    )
    with tempfile.TemporaryDirectory() as folder:
        summary = write_run(Path(folder), plan, start=START)
        assume(summary.records)
        expected = LiveExpectation(
            "000001",
            START,
            START + timedelta(seconds=duration),
            plan.chunk_length_s,
            plan.chunk_overlap_s,
            threads,
            plan.samples_per_record,
            compressor,
            # a run without a record in its last chunks has no such chunks
            length_tolerance_s=duration,
        )
        assert check_live_data(summary.folder, expected).n_records == summary.records


@settings(max_examples=60, deadline=None)
@given(st.data())
@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_no_damaged_file_passes_with_other_records(good: Path, compressor: str, data: st.DataObject) -> None:
    """A flipped bit is found, or changes only what the format cannot show: possible samples, or headers
    that stay consistent. Record count and time windows hold in any case.
    """
    path = data.draw(st.sampled_from(sorted(p for p in good.glob("??????/*") if p.stat().st_size)))
    plain = lz4.frame.decompress(path.read_bytes())
    content = bytearray(compress(plain, compressor))
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    window = EXPECTED.window(int(path.parent.name), overlap=False)
    with tempfile.TemporaryDirectory() as folder:
        bad = Path(folder) / "file"
        bad.write_bytes(content)
        scan = scan_file(bad, compressor, window)
        changed = b"" if scan.faults else b"".join(iter_plain(bad, compressor))
    if scan.faults:
        return
    before = np.frombuffer(plain, record_dtype(110))
    after = np.frombuffer(changed, record_dtype(110))
    assert len(after) == scan.n_records == len(before)
    assert ((after["time"] >= window.start) & (after["time"] < window.end)).all()
    assert (after["length"] <= 110).all() and (after["data"] >= 0).all()


@settings(max_examples=60, deadline=None)
@given(plain=st.binary(min_size=1, max_size=5000), repeat=st.integers(1, 50), data=st.data())
@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_streams_are_read_to_their_very_end(compressor: str, plain: bytes, repeat: int, data: st.DataObject) -> None:
    block = compress(plain * repeat, compressor)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(block)
        assert b"".join(iter_plain(path, compressor)) == plain * repeat
        path.write_bytes(block[: data.draw(st.integers(1, len(block) - 1))])
        with pytest.raises(BadStream):
            list(iter_plain(path, compressor))
        path.write_bytes(block + data.draw(st.binary(min_size=1, max_size=20)))
        with pytest.raises(BadStream):
            list(iter_plain(path, compressor))


def test_problems_name_the_file(good: Path, tmp_path: Path) -> None:
    with pytest.raises(LiveDataDamaged, match=r"\.: 0 chunks"):
        end = tmp_path / "000932" / "THE_END"
        end.mkdir(parents=True)
        for name in (good / "THE_END").iterdir():
            (end / name.name).touch()
        check_live_data(tmp_path / "000932", EXPECTED)
