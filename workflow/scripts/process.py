"""Run the process step of a job."""

from straxflow.steps import process
from straxflow.steps.job import run_job

run_job(snakemake, process.step)  # noqa: F821  (snakemake gives it to its scripts)
