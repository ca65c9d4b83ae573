"""Run the move_out step of a job."""

from straxflow.steps import move_out
from straxflow.steps.job import run_job

run_job(snakemake, move_out.step)  # noqa: F821  (snakemake gives it to its scripts)
