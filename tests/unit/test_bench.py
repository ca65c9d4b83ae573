"""The benches' command line, arithmetic and report; nothing is timed here."""

import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from bench import compression, delays, hashing, kept, report
from bench.__main__ import BENCHES, parse
from bench.measure import Sample, Series, _adopted, cpu_of, in_turn, measure, ratio_of, run
from bench.result import Result, Table, compare, judge, judge_all, parts, times
from bench.site import Lab
from bench.transfer import Files


def series(name: str, *walls: float) -> Series:
    return Series(name, [Sample(wall, wall / 2) for wall in walls])


def test_command_line_takes_names_and_rejects_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["--quick", "transfer"]).names == ["transfer"]
    assert parse([]).names == []
    with pytest.raises(SystemExit):
        parse(["transfers"])
    assert "no bench transfers; there are " + ", ".join(BENCHES) in capsys.readouterr().err


def test_a_ratio_is_the_median_of_the_ratios_of_neighbours() -> None:
    # both were slowed down in the third repetition: its ratio stays what it is
    assert ratio_of(series("a", 1.1, 1.2, 22.0), series("b", 1.0, 1.0, 20.0)) == pytest.approx(1.1)


def test_all_repetitions_are_told_by_their_median_and_range() -> None:
    assert judge_all("x", [2.0, 1.0, 4.0], 3, " s").figure == "2.00 s (1.00 to 4.00, n=3)"
    assert judge_all("x", [2.0, 1.0, 4.0], 1, " s").verdict == "MISSED"
    assert compare("x", series("a", 1.0), series("b", 4.0), None, "cpu").figure == "0.25 (0.25 to 0.25, n=1)"


def test_cases_are_measured_in_turn() -> None:
    order: list[str] = []

    def case(name: str) -> Sample:
        order.append(name)
        return Sample(1, 1)

    found = in_turn({"a": lambda _: case("a"), "b": lambda _: case("b")}, 3)
    assert "".join(order) == "abbaab"
    assert [len(s.samples) for s in found.values()] == [3, 3]


def test_cpu_of_a_command_counts_its_children_and_itself_apart() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    sample = run([sys.executable, "-c", script])
    assert sample.cpu >= 0.3
    assert sample.own_cpu < sample.cpu


def test_a_failed_command_is_told_with_its_output(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="exit 3: too bad"):
        run(["sh", "-c", "echo too bad; exit 3"], log=tmp_path / "log")


def results(limit: float) -> list[Result]:
    one, two = series("straxflow", 2.0, 2.2), series("plain | rsync", 2.0, 2.0)
    tables = [times("Times", [one, two]), parts("Parts", [{"rsync": 1.0}, {"rsync": 3.0}]), Table("Empty", ["x"], [])]
    judged = [compare("transfer", one, two, limit), judge("main process", 1.5, None, " s")]
    return [Result("transfer", "Two files", judged, tables, ["A note."])]


def test_the_page_says_clearly_when_a_goal_is_missed() -> None:
    text = report.markdown(results(1.01), ["transfer"])
    assert "**1 of 1 goals MISSED:**\n\n- transfer: 1.05 (1.00 to 1.10, n=2), the goal is at most 1.01\n" in text
    assert "| [transfer](#transfer) | 0 of 1 | transfer: 1.05 (1.00 to 1.10, n=2) |" in text
    assert "| transfer | 1.05 (1.00 to 1.10, n=2) | at most 1.01 | MISSED |" in text
    assert "| plain \\| rsync | 2.00 (2.00 to 2.00) |" in text
    assert "`python -m bench transfer`" in text
    assert "**All 1 goals are met.**" in report.markdown(results(1.10), [])


def test_what_was_found_is_kept_for_the_page(tmp_path: Path) -> None:
    (found,) = results(1.01)
    found = kept.stamped(found, 12)
    assert kept.find(tmp_path / "bench", "transfer") is None
    kept.keep(tmp_path / "bench", "transfer", found)
    assert kept.find(tmp_path / "bench", "transfer") == found
    assert f" {found.measured}\n" in report.markdown([found], []) and found.measured.endswith("UTC, in 12 s.")


def test_the_tables_are_shown_on_a_terminal() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    report.show(console, results(1.01)[0])
    report.conclude(console, results(1.01))
    text = console.export_text()
    assert "MISSED" in text
    assert "A note." in text


def test_help_lists_the_benches() -> None:
    done = subprocess.run([sys.executable, "-m", "bench", "--help"], capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in BENCHES)


def test_sets_of_files_are_named_in_words() -> None:
    assert [Files(20, 50.0, 1).name, Files(20_000, 0.01, 1).name] == ["20 x 50 MB", "20,000 x 10 kB"]


def test_where_no_line_can_be_made_nothing_is_told_of_delays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(_: Path) -> Path:
        raise delays.NotPossible("cc is not installed")

    monkeypatch.setattr(delays, "build", build)
    result = delays.bench(Lab(tmp_path, None, None), True)  # type: ignore[arg-type]  # it gets no further
    assert (result.judged, result.tables) == ([], [])
    assert result.notes == ["not all was measured: cc is not installed"]
    assert not list(tmp_path.iterdir())


def test_speeds_are_by_wall_clock_and_by_cpu() -> None:
    (row,) = hashing.speeds("", {"xxhsum": series("xxhsum", 0.5)}, 2.0).rows
    assert row == ["xxhsum", "0.50 (0.50 to 0.50)", "4.00", "8.00"]


def test_the_table_of_compressors_is_put_in_words() -> None:
    found = {
        "lz4": compression.Figures(0.6, 400, 800),
        "zstd": compression.Figures(0.4, 100, 400),
        "blosc": compression.Figures(0.7, 300, 900),
    }
    assert compression.say("demo", found) == (
        "demo: zstd makes the smallest files (0.40 of the plain size); lz4 is the fastest, with files 1.50 times as "
        "large, written 4.0 and read 2.0 times as fast."
    )
    assert "zstd saves 33 % of the disk, for 7.5 s more of a core" in compression.say_default(found)
    smaller = {**found, "lz4": compression.Figures(0.612, 400, 800)}
    assert "by at most 2.0 %" in compression.say_chunks({"demo": {20: found, 200: smaller}})


def test_noise_is_of_records_around_the_baselines() -> None:
    records = compression.noise(244_000)
    assert records.nbytes == 244_000
    low, high = compression.BASELINES
    assert low - 20 < records["data"].min() < records["data"].max() < high + 20


def test_the_cpu_of_an_ssh_in_the_background_counts(tmp_path: Path) -> None:
    # a shell by the name of ssh, which outlives who started it
    ssh = tmp_path / "ssh"
    shutil.copy(shutil.which("dash") or "/bin/sh", ssh)
    busy = "i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done"
    waits = f"{ssh} -c '{busy}; touch {tmp_path}/done; sleep 20' & while [ ! -e {tmp_path}/done ]; do sleep 0.05; done"
    sample = run(["bash", "-c", waits])
    (left,) = _adopted()
    assert sample.cpu >= cpu_of(left) > 0
    os.kill(left, signal.SIGKILL)
    os.waitid(os.P_PID, left, os.WEXITED | os.WNOWAIT)
    # it is waited for before the next measurement, of which it is no part
    measure(lambda: None)
    assert not _adopted()
