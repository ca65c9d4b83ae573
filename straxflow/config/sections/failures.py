"""What follows when a run fails: when it is tried again, with how much of it, and who is told."""

from __future__ import annotations

from pydantic import Field, field_validator

from straxflow.config.sections.base import Count, Name, Seconds, Section
from straxflow.config.words import check_command

HOOK_WORDS = ("site", "run", "number", "mode", "step", "product", "reason", "log", "state", "batch", "count")


class Failures(Section):
    """When a failed run is tried again, and how much of it."""

    give_up_after: Count = Field(10, description="A run that failed so often is left to a person.")
    backoff_s: float = Field(
        60,
        ge=0,
        description="A failed run is due again after this x U(0.5, 1.5) x `growth`^min(n, `growth_steps`) s, n being "
        "its failures before.",
    )
    growth: float = Field(5, ge=1, description="How much longer each pause is than the one before.")
    growth_steps: int = Field(3, ge=0, description="The pause grows so many times.")
    fewer_products: dict[Count, list[Name]] = Field(
        {},
        description="A product that is not in the list is given up when it has failed so often for a run; e.g. `{2: "
        "[raw_records, peaks], 6: [raw_records]}`: events after 2 failures, peaks after 6.",
    )


class Hooks(Section):
    """Programs that tell people, by mail or chat: command lines without a shell.

    {site}, {run}, {number}, {mode}, {step}, {product}, {reason}, {log}, {state}, {batch} and {count} are filled in (the
    text is empty where one does not apply), and the same is given as JSON on standard input.
    """

    on_failure: str | None = Field(None, description="Called when a run has failed.")
    on_stall: str | None = Field(None, description="Called by `straxflow watch` when nothing moves any more.")
    timeout_s: Seconds = Field(30, description="A hook that takes longer is stopped.")
    repeat_h: float = Field(
        12,
        ge=0,
        description="Further failures of a run are not told again for so many hours, but for the last one, after "
        "which it is left to a person.",
    )
    at_once: Count = Field(3, description="More failed runs than this are told in one call.")
    per_hour: Count = Field(6, description="Calls of on_failure an hour; what comes on top is told later, in one.")

    @field_validator("on_failure", "on_stall")
    @classmethod
    def _fits(cls, command: str | None) -> str | None:
        return None if command is None else check_command(command, HOOK_WORDS)
