"""Run the release step of a job."""

from straxflow.steps import release
from straxflow.steps.job import run_job

run_job(snakemake, release.step)  # noqa: F821  (snakemake gives it to its scripts)
