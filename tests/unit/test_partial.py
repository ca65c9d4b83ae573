"""The good chunks of a run whose DAQ crashed."""

import shutil
from pathlib import Path

import pytest

from straxflow.errors import StraxflowError
from straxflow.lab.daq import RunPlan
from straxflow.lab.daq.writer import write_run
from straxflow.livedata import check_live_data
from straxflow.livedata.layout import read_layout
from straxflow.livedata.partial import forget_made, good_chunks, keep_good, layout_of, made_in
from straxflow.receipts import RunFacts
from straxflow.steps.transfer import expectation

THREADS = {"reader0": 2, "reader1": 1}


def files_of(chunks: int, *threads: str) -> list[tuple[str, int]]:
    return [
        (f"{name}/{thread}", 10)
        for k in range(chunks)
        for thread in threads
        for name in (f"{k:06d}", f"{k:06d}_post", f"{k + 1:06d}_pre")
    ]


def test_good_is_what_every_thread_has_finished() -> None:
    whole = files_of(4, "reader0_1", "reader0_2", "reader1_1")
    found = good_chunks(layout_of(whole), THREADS)
    assert (found.good, found.begun, found.whole) == (4, 4, False)
    signed = [*whole, *((f"THE_END/{t}", 3) for t in found.threads)]
    assert good_chunks(layout_of(signed), THREADS).whole
    assert not good_chunks(layout_of([*signed, ("000004_temp/reader1_1", 5)]), THREADS).whole
    # one thread had not come so far; one file is cut short; one was being written
    for torn in ("000002/reader0_2", "000002_post/reader1_1", "000003_pre/reader0_1"):
        assert good_chunks(layout_of([f for f in whole if f[0] != torn]), THREADS).good == 2, torn
    assert (
        good_chunks(layout_of([f if f[0] != "000003_pre/reader0_1" else (f[0], 9) for f in whole]), THREADS).good == 2
    )
    assert good_chunks(layout_of([]), THREADS).good == 0
    # of the last two chunks a crash of the machine left the names
    emptied = [f if f[0] < "000002/" or "000002_pre" in f[0] else (f[0], 0) for f in whole]
    assert good_chunks(layout_of(emptied), THREADS).good == 2
    # a thread that never wrote anything does not count
    assert good_chunks(layout_of(files_of(3, "reader0_1")), THREADS).good == 3


def test_what_is_kept_passes_the_check_of_a_whole_run(tmp_path: Path) -> None:
    plan = RunPlan(7, duration_s=2.4, processing_threads=THREADS, chunk_length_s=0.5, chunk_overlap_s=0.1)
    summary = write_run(tmp_path, plan)
    folder = tmp_path / "000007"
    shutil.rmtree(folder / "THE_END")
    layout = read_layout(folder)
    assert layout.n_chunks > 3
    made = keep_good(folder, 2, THREADS)
    daq = {
        "processing_threads": THREADS, "strax_chunk_length": 0.5, "strax_chunk_overlap": 0.1, "compressor": "lz4"
    }  # fmt: skip
    end = summary.start + (summary.end - summary.start) * (2 * 0.6 / plan.seconds)
    facts = RunFacts(run="000007", number=7, start=summary.start, end=end, mode="background", daq_config=daq)
    report = check_live_data(folder, expectation(facts, 0.05))
    assert report.n_chunks == 3
    assert 0 < report.n_records < summary.records
    assert {path.split("/")[0] for path in made} == {"000002", "THE_END"}
    everything = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    assert sorted(made_in(everything, 2)) == sorted(made)
    # the same again changes nothing: what arrives twice is the same copy
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    keep_good(folder, 2, THREADS)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_what_was_made_here_is_not_missed_at_the_daq(tmp_path: Path) -> None:
    """A kill after it was made: the next attempt goes on with what arrived, and only that."""
    write_run(tmp_path, RunPlan(7, duration_s=2.4, processing_threads=THREADS, chunk_length_s=0.5, chunk_overlap_s=0.1))
    folder = tmp_path / "000007"
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    forget_made(folder)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    keep_good(folder, 2, THREADS)
    forget_made(folder)
    left = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert left.items() <= before.items()
    assert sorted(p.name for p in folder.iterdir()) == ["000000", "000000_post", "000001", "000001_post",
        "000001_pre", "000002_pre"]  # fmt: skip


def test_a_campaign_may_not_have_the_word(monkeypatch: pytest.MonkeyPatch) -> None:
    from straxflow.batch import campaign_name

    monkeypatch.setenv("STRAXFLOW_CAMPAIGN", "partial")
    with pytest.raises(StraxflowError, match="something else"):
        campaign_name()
