"""What the benches of many runs work out from what they measure; nothing is timed here."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench.cluster import Invocation, cpu_of_steps, many_runs
from bench.kinds import check_same
from bench.measure import Sample, a_run, cpu_of_processes, idle_cores
from bench.on_slurm import Case, calls_table, cpu_table
from bench.overhead import LINEAR_GOAL, linear
from bench.preview import ENTRIES, FEW_ENTRIES, Step, expected_fill
from bench.small_runs import scaled
from bench.where import shares


def store(folder: Path, data: bytes) -> Path:
    product = folder / "000001-raw_records-abc"
    product.mkdir(parents=True)
    (product / "000000").write_bytes(data)
    (product / "metadata.json").write_text(f"made in {folder}")
    return folder


def test_results_of_both_ways_are_compared_without_their_metadata(tmp_path: Path) -> None:
    one, same, other = store(tmp_path / "a", b"1"), store(tmp_path / "b", b"1"), store(tmp_path / "c", b"2")
    assert check_same(one, same, ["000001"]) == "1 runs (1 files)"
    with pytest.raises(RuntimeError, match=r"run 000001: .* not hold the same: \['000001-raw_records-abc/000000'\]"):
        check_same(one, other, ["000001"])
    with pytest.raises(RuntimeError, match=r"run 000002: .* no files"):
        check_same(one, same, ["000002"])


def test_a_part_of_the_work_is_scaled_in_all_that_was_measured() -> None:
    assert scaled(Sample(3.0, 2.0, 1.0), 4) == Sample(12.0, 8.0, 4.0)
    assert shares({"a": 1.0, "b": 3.0}) == "b 75%, a 25%"


def test_cpu_of_processes_is_that_of_those_with_a_word_in_their_command_lines(tmp_path: Path) -> None:
    burn = "import sys, time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\nsys.stdin.read()"
    argv = [sys.executable, "-c", burn, str(tmp_path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert 0.25 < cpu_of_processes(str(tmp_path)) < 10
        process.communicate()
    assert cpu_of_processes(str(tmp_path)) == 0


def test_idle_time_of_the_cores_never_goes_back() -> None:
    assert 0 < idle_cores() <= idle_cores()


def test_cpu_of_slurm_steps_is_theirs_and_that_of_all_they_ran() -> None:
    line = "17 (slurmstepd: [1.0] x) S 1 17 17 0 -1 0 0 0 0 0 10 20 30 40 20 0 1 0 99"
    assert cpu_of_steps(f"{line}\n{line}\n") == pytest.approx(2.0)
    assert cpu_of_steps("") == 0


def test_a_run_costs_what_an_idle_invocation_does_not() -> None:
    assert a_run([Sample(13.0, 8.0, 5.0), Sample(11.0, 6.0, 4.0)], Sample(2.0, 2.0, 1.0), 10) == Sample(2.0, 1.0, 0.7)


def case(runs: int, *jobs_cpu: float) -> Case:
    main, idle = Sample(53.0, 12.0, 4.0, 100.0), Sample(3.0, 2.0, 1.0)
    return Case(runs, [Invocation(main, cpu, {"sbatch": 5, "squeue": 2}) for cpu in jobs_cpu], idle, 6.0)


def test_a_run_on_slurm_costs_its_batch_jobs_too() -> None:
    one = case(10, 15.0, 25.0)
    assert (one.main, one.jobs_cpu, one.cpu, one.calls_a_run("sbatch")) == (Sample(10.0, 2.0, 0.6), 4.0, 6.0, 1.0)
    assert sum(one.parts.values()) == pytest.approx(one.cpu)
    assert one.invocations[0].whole == Sample(53.0, 27.0, 4.0)


def test_the_tables_of_slurm_are_of_medians_over_the_repetitions() -> None:
    found = {"grouped": [case(10, cpu) for cpu in (20.0, 40.0)]}
    assert calls_table("", found).rows == [["grouped", "10", "53.0", "5.00", "4.00", "5", "2", "0", "0"]]
    assert cpu_table(found).rows == [["grouped", "0.30", "0.70", "0.60", "2.40"]]


def test_growth_is_judged_by_what_a_run_takes_where_there_are_fewer() -> None:
    wall, cpu = linear((100, 1000), {"wall clock": LINEAR_GOAL, "CPU": LINEAR_GOAL + 0.1}, " on Slurm")
    assert (wall.what, wall.verdict) == ("wall clock a run, 1,000 by 100 runs on Slurm", "met")
    assert (cpu.what, cpu.verdict) == ("CPU a run, 1,000 by 100 runs on Slurm", "MISSED")


def test_so_many_runs_share_a_batch_job_as_the_profile_is_told() -> None:
    settings = many_runs(50)
    assert settings["group-components"] == ["runs=50"]
    assert all(group.endswith("=runs") for group in settings["groups"])


def test_the_time_to_fill_a_database_is_that_of_documents_of_the_same_kind() -> None:
    steps = [Step(1_000, ENTRIES, 1_000, 9.0), Step(3_000, ENTRIES, 2_000, 4.0)]
    assert expected_fill([], 1_000, ENTRIES) == 0
    assert expected_fill(steps, 5_000, FEW_ENTRIES) == 0
    assert expected_fill(steps, 10_000, ENTRIES) == pytest.approx(20.0)
