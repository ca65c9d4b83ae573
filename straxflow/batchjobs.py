"""What a batch job of Snakemake's Slurm plugin starts: one snakemake, which does all of its rules itself.

The plugin's own way is one more snakemake for each rule, started by srun from the first: 1.5 s of CPU each, and none
knows of what another one has loaded. Apart from MPI, which no step here is, srun gives nothing to jobs of one node.
"""

from __future__ import annotations

from typing import Any


def run_rules_directly(executor: Any) -> None:
    """Let the jobs that an executor submits run their rules as any local snakemake does, on the CPUs that they ask for,
    and none suffer from another one's failure. Job arrays stay the plugin's."""
    if executor.array_jobs:
        return
    arguments = executor.get_job_args
    # the last one counts
    executor.get_job_args = lambda job: f"{arguments(job)} --cores {max(job.threads, 1)}"
    executor.additional_general_args = lambda: "--executor local --keep-going"
