"""What jobs ask of the batch system."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Self

from pydantic import Field, model_validator

from straxflow.config.sections.base import Count, Section


class AtRate(Section):
    """What a job asks for at a data rate; what is left out is as for any rate."""

    up_to_mb_s: float = Field(gt=0, description="For runs whose average rate, of all detectors, is up to this, MB/s.")
    mem_mb: Count | None = Field(None, description="Memory, MB.")
    mem_mb_per_gb: float | None = Field(None, ge=0, description="More memory per GB of input, MB.")
    runtime_min: Count | None = Field(None, description="Run time, minutes.")
    runtime_min_per_gb: float | None = Field(None, ge=0, description="More run time per GB of input, minutes.")
    threads: Count | None = Field(None, description="Threads.")


class Resources(Section):
    """What a job asks of the batch system; `mem_mb` and `runtime_min` grow with the run, with each attempt, and
    with each one of earlier invocations that was ended for want of them."""

    mem_mb: Count = Field(1000, description="Memory, MB.")
    mem_mb_per_gb: float = Field(0, ge=0, description="More memory per GB of input, MB.")
    runtime_min: Count = Field(30, description="Run time, minutes.")
    runtime_min_per_gb: float = Field(0, ge=0, description="More run time per GB of input, minutes.")
    threads: Count = Field(1, description="Threads.")
    by_rate: list[AtRate] = Field(
        [],
        description="Other values by the run's data rate, lowest rate first: the first row that fits holds. Runs above "
        "the last row, or of unknown rate, have the values beside.",
    )

    @model_validator(mode="after")
    def _rates_rise(self) -> Self:
        for row, after in pairwise(self.by_rate):
            if after.up_to_mb_s <= row.up_to_mb_s:
                raise ValueError(f"by_rate: up_to_mb_s {after.up_to_mb_s:g} stands behind {row.up_to_mb_s:g}; sort it")
        return self

    def at_rate(self, mb_s: float | None) -> Resources:
        """What a job asks for at a data rate in MB/s (None: unknown)."""
        row = None if mb_s is None else next((row for row in self.by_rate if mb_s <= row.up_to_mb_s), None)
        if row is None:
            return self
        changes: dict[str, Any] = {name: value for name, value in row if name != "up_to_mb_s" and value is not None}
        return self.model_copy(update=changes)


class Partition(Section):
    """A partition of the batch system, for jobs up to a run time."""

    up_to_min: Count | None = Field(
        None, description="For jobs that ask for at most so many minutes; absent: for all others."
    )
    partition: str = Field(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.,+-]*$",
        description="Its name; several, with commas, if any of them will do.",
    )


class StepResources(Section):
    """Resources by step (a product may have its own for `process`), and how much a job may ask for at most."""

    max_mem_mb: Count | None = Field(
        None, description="No job asks for more memory, MB; what no node has would pend for ever."
    )
    max_runtime_min: Count | None = Field(
        None, description="No job asks for more run time, minutes; more than the partition allows would pend for ever."
    )

    transfer: Resources = Resources(runtime_min=60, runtime_min_per_gb=5)
    process: Resources = Resources(mem_mb=3000, mem_mb_per_gb=500, runtime_min=30, runtime_min_per_gb=15)
    checksum: Resources = Resources(runtime_min_per_gb=1)
    move_out: Resources = Resources(runtime_min_per_gb=5)

    partitions: list[Partition] = Field(
        [],
        description="Slurm partitions by the run time that a job asks for, shortest first; empty: the profile's. Steps "
        "that share one batch job (`groups` of the profile) are taken together.",
    )

    @model_validator(mode="after")
    def _partitions_rise(self) -> Self:
        limits = [entry.up_to_min for entry in self.partitions]
        if self.partitions and (limits[-1] is not None or None in limits[:-1]):
            raise ValueError("partitions: the last one, and only that, must have no up_to_min: long jobs need one too")
        for first, second in pairwise(limit for limit in limits if limit is not None):
            if second <= first:
                raise ValueError(f"partitions: up_to_min {second} stands behind {first}; sort it")
        return self

    def partition_for(self, minutes: float) -> str | None:
        """The partition for a job that asks for so many minutes; None: what the profile says."""
        fits = (e.partition for e in self.partitions if e.up_to_min is None or minutes <= e.up_to_min)
        return next(fits, None)
