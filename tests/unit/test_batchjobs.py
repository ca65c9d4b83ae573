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
        get_python_executable=lambda: "python",
    )


@pytest.mark.parametrize(
    ("threads", "resources", "limits"),
    [(3, {"mem_mb": 700}, "--cores 3 --resources mem_mb=700"), (0, {"mem_mb_per_cpu": 700}, "--cores 1")],
)
def test_a_batch_job_does_its_rules_itself_with_what_it_asked_for(
    threads: int, resources: dict[str, int], limits: str
) -> None:
    changed = executor(set())
    run_rules_directly(changed)
    job = SimpleNamespace(name="a", threads=threads, resources=resources)
    assert changed.get_job_args(job) == f"--target-jobs a --cores all {limits}"
    assert changed.get_python_executable() == "exec python"
    assert changed.additional_general_args() == "--executor local --keep-going"


def test_job_arrays_stay_as_they_are() -> None:
    changed = executor({"all"})
    run_rules_directly(changed)
    assert changed.additional_general_args() == "--executor slurm-jobstep --jobs 1"
