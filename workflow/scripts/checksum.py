"""Run the checksum step of a job."""

from straxflow.steps import checksum
from straxflow.steps.job import run_job

run_job(snakemake, checksum.step)  # noqa: F821  (snakemake gives it to its scripts)
