"""Run the transfer step of a job."""

from straxflow.steps import transfer
from straxflow.steps.job import run_job

run_job(snakemake, transfer.step)  # noqa: F821  (snakemake gives it to its scripts)
