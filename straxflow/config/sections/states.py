"""What straxflow tells others in the run documents: states, and the history of what was tried."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from straxflow.config.sections.base import Count, Section

SharedState = Literal["pending", "submitted", "running", "done", "failed"]


class OtherField(Section):
    """A field of the run document in which an older tool keeps a state; straxflow writes it along with its own."""

    source: str = Field(
        "run", alias="from", description="Whose state it tells: `run` (the whole run), `live`, or a product."
    )
    values: dict[SharedState, str] = Field(
        min_length=1,
        description="The tool's word for each state: pending, submitted, running, done, failed. A state without one "
        "leaves the field as it is.",
    )
    wanted: list[str] = Field(
        [],
        description="Words of the tool, or of the DAQ, by which a run that straxflow never touched is pending, e.g. "
        "`[acquired]`. `straxflow init` makes an index for it.",
    )


class States(Section):
    """States in the run documents, besides `processing_status`."""

    fields: dict[str, OtherField] = Field(
        {},
        description="Fields that older tools read, by name (online campaign only, never by a shadow), e.g. "
        "`{raw_status: {from: live, values: {running: transferring, done: ondeck}}}`.",
    )

    @model_validator(mode="after")
    def _not_our_own(self) -> Self:
        own = {"_id", "number", "name", "start", "end", "mode", "tags", "data", "deleted_data", "daq_config"}
        for name in self.fields:
            top = name.partition(".")[0]
            if top in own | {"processing_status", "processing_failed", "straxflow"} or "$" in name or not top:
                raise ValueError(f"fields.{name}: this field means something else; name one that only holds a state")
        return self


class History(Section):
    """Attempts kept in the run database, in the collection `straxflow_attempts`."""

    per_run: Count = Field(200, description="Attempts kept of a run, the newest.")
    days: Count = Field(730, description="Attempts older than so many days are dropped.")


class Sync(Section):
    """How documents are brought in line with receipts (`straxflow sync`)."""

    max_downgrades: int = Field(
        10,
        ge=0,
        description="Runs that may lose their `done` at once; more look like a lost state folder, and need "
        "`--yes-downgrade`.",
    )
    at_start: int = Field(
        100, ge=0, description="Documents in doubt that an invocation looks at when it starts; 0: none."
    )
