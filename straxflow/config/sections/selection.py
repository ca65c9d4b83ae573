"""Which runs are worked on, and how they are claimed."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from straxflow.config.sections.base import Count, Section


def _names_runs(word: int | str) -> int | str:
    if isinstance(word, int) or re.fullmatch(r"@.+|[A-Za-z0-9_]+|[0-9]+-[0-9]+", word):
        return word
    raise ValueError("expected a number (932), a range ('900-950'), a run id, or a file of these ('@runs.txt')")


RunWord = Annotated[Annotated[int, Field(ge=0)] | str, AfterValidator(_names_runs)]


class Tags(Section):
    """Names of the tags on runs that straxflow obeys; several may mean the same."""

    prioritize: list[str] = Field(["prioritize"], description="Claimed before all others, and done first.")
    process: list[str] = Field(
        ["process"],
        description="Worked on whatever its age and mode, and also while the DAQ takes a run (`daq.while_live`); a run "
        "without a state is pending by it. A run that is done or failed needs its state set to `pending`.",
    )
    leave_alone: list[str] = Field(
        ["abandon", "hold-processing", "#DNT"], description="Not touched, as long as the tag is there."
    )
    transfer_only: list[str] = Field(
        ["donotprocess", "#DNP"],
        description="The live data is brought in and registered, but no product is made as long as the tag is there.",
    )


class Runs(Section):
    """Which runs this site works on."""

    min_run_number: int = Field(ge=0, description="Runs below it are never touched. Mandatory.")
    max_run_number: int | None = Field(None, description="Runs above it are never touched.")
    numbers: list[RunWord] | None = Field(
        None,
        description="Only these: numbers, ranges ('900-950'), run ids in quotes, and files ('@runs.txt') of such "
        "words, one a line, which are read again for each claim.",
    )
    modes: list[str] = Field(["*"], description="Only these modes (patterns with * and ?).")
    detectors: list[str] = Field([], description="Only runs with one of these detectors; empty: all.")
    max_age_days: float | None = Field(
        None, gt=0, description="Runs that ended longer ago are left alone (in campaign online)."
    )
    tags: Tags = Field(Tags(), description="Tags that are obeyed.")
    settle_s: float = Field(10, ge=0, description="A run is pending so many seconds after its end.")


class Claim(Section):
    """How runs are claimed."""

    max_runs: int = Field(200, ge=1, le=500, description="Runs that one invocation claims at most.")
    max_jobs: Count | None = Field(
        None,
        description="Runs at work at once in the whole site, over all invocations and campaigns; absent: no limit. "
        "(`jobs` of the profile limits the batch jobs of one invocation.)",
    )
    lease_s: float = Field(600, ge=3, description="A claim that is not renewed for so long may be taken over.")
