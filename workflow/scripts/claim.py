"""Claim a batch of pending runs."""

from straxflow.steps import claim
from straxflow.steps.local import run_local

run_local(snakemake, claim.claim_batch)  # noqa: F821  (snakemake gives it to its scripts)
