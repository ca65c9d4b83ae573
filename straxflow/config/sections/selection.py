"""Which runs are worked on, and how they are claimed."""

from __future__ import annotations

from pydantic import Field

from straxflow.config.sections.base import Section


class Runs(Section):
    """Which runs this site works on."""

    min_run_number: int = Field(ge=0, description="Runs below it are never touched. Mandatory.")
    max_run_number: int | None = Field(None, description="Runs above it are never touched.")
    numbers: list[int] | None = Field(None, description="Only these runs.")
    modes: list[str] = Field(["*"], description="Only these modes (patterns with * and ?).")
    detectors: list[str] = Field([], description="Only runs with one of these detectors; empty: all.")
    skip_tags: list[str] = Field(
        ["abandon", "hold-processing", "donotprocess"],
        description="Runs with one of these tags are left alone.",
    )
    settle_s: float = Field(10, ge=0, description="A run is pending so many seconds after its end.")


class Claim(Section):
    """How runs are claimed."""

    max_runs: int = Field(200, ge=1, le=500, description="Runs that one invocation claims at most.")
    lease_s: float = Field(600, ge=3, description="A claim that is not renewed for so long may be taken over.")
