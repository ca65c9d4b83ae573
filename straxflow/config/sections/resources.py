"""What jobs ask of the batch system."""

from __future__ import annotations

from pydantic import Field

from straxflow.config.sections.base import Count, Section


class Resources(Section):
    """What a job asks of the batch system; all grow with the attempt, `mem_mb` and `runtime_min` with the run."""

    mem_mb: Count = Field(1000, description="Memory, MB.")
    mem_mb_per_gb: float = Field(0, ge=0, description="More memory per GB of input, MB.")
    runtime_min: Count = Field(30, description="Run time, minutes.")
    runtime_min_per_gb: float = Field(0, ge=0, description="More run time per GB of input, minutes.")
    threads: Count = Field(1, description="Threads.")


class StepResources(Section):
    """Resources by step (a product may have its own for `process`)."""

    transfer: Resources = Resources(runtime_min=60, runtime_min_per_gb=5)
    process: Resources = Resources(mem_mb=3000, mem_mb_per_gb=500, runtime_min=30, runtime_min_per_gb=15)
    checksum: Resources = Resources(runtime_min_per_gb=1)
    move_out: Resources = Resources(runtime_min_per_gb=5)
