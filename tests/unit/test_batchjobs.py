"""What a batch job starts."""

from types import SimpleNamespace

import pytest

from straxflow.batchjobs import run_rules_directly


def executor(array_jobs: set[str]) -> SimpleNamespace:
    """As Snakemake's for Slurm."""
    return SimpleNamespace(
        array_jobs=array_jobs,
        get_job_args=lambda job: f"--target-jobs {job.name} --cores all",
        additional_general_args=lambda: "--executor slurm-jobstep --jobs 1",
    )


@pytest.mark.parametrize(("threads", "cores"), [(3, 3), (0, 1)])
def test_a_batch_job_does_its_rules_itself_on_its_cpus(threads: int, cores: int) -> None:
    changed = executor(set())
    run_rules_directly(changed)
    assert changed.get_job_args(SimpleNamespace(name="a", threads=threads)).endswith(f" --cores {cores}")
    assert changed.additional_general_args() == "--executor local --keep-going"


def test_job_arrays_stay_as_they_are() -> None:
    changed = executor({"all"})
    run_rules_directly(changed)
    assert changed.additional_general_args() == "--executor slurm-jobstep --jobs 1"
