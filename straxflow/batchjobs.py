"""What a batch job of Snakemake's Slurm plugin starts: one snakemake, which does all of its rules itself.

The plugin's own way is one more snakemake for each rule, started by srun from the first: 1.5 s of CPU each, and none
knows of what another one has loaded. Apart from MPI, which no step here is, srun gives nothing to jobs of one node.
"""

from __future__ import annotations

from typing import Any


def run_rules_directly(executor: Any) -> None:
    """Let the jobs that an executor submits run their rules as any local snakemake does, with the CPUs and the memory
    that they ask for, and none suffer from another one's failure. Job arrays stay the plugin's."""
    if executor.array_jobs:
        return
    arguments, python = executor.get_job_args, executor.get_python_executable()

    def with_limits(job: Any) -> str:
        memory = job.resources.get("mem_mb")
        limits = f"--cores {max(job.threads, 1)}" + (f" --resources mem_mb={memory}" if memory else "")
        return f"{arguments(job)} {limits}"  # the last --cores counts

    executor.get_job_args = with_limits
    executor.additional_general_args = lambda: "--executor local --keep-going"
    # where only the first process of a batch job gets its signals, that should be snakemake, not a shell
    executor.get_python_executable = lambda: f"exec {python}"
