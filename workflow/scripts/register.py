"""Run the register step of a job."""

from straxflow.steps import register
from straxflow.steps.job import run_job

run_job(snakemake, register.step)  # noqa: F821  (snakemake gives it to its scripts)
