"""Run the register_live step of a job."""

from straxflow.steps import register_live
from straxflow.steps.job import run_job

run_job(snakemake, register_live.step)  # noqa: F821  (snakemake gives it to its scripts)
