"""Write the run.json of a run."""

from straxflow.steps import claim
from straxflow.steps.local import run_local

run_local(snakemake, claim.write_facts)  # noqa: F821  (snakemake gives it to its scripts)
