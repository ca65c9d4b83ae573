"""Reprocessing: campaigns beside the online one, and the corrections that they are made with."""

from __future__ import annotations

from pydantic import Field, field_validator

from straxflow.config.sections.base import Name, Seconds, Section
from straxflow.config.words import check_command

CHECK_WORDS = ("run", "number", "mode", "start", "version")


class CorrectionsQuery(Section):
    """A document that is there once a run has its corrections."""

    database: str | None = Field(None, description="Its database, if not that of the run documents.")
    collection: str = Field(description="Its collection.")
    filter: dict[str, object] = Field(
        description="The query, as for MongoDB; {run}, {number}, {mode}, {start} and {version} are filled in, and keep "
        "their type where a text is nothing but one of them."
    )


class Corrections(Section):
    """How a version of the corrections (`straxflow reprocess --corrections VERSION`) comes into the processing, and
    how it is known that a run has them. Runs that have not wait, and say so.
    """

    config: dict[str, object] = Field({}, description="Added to strax.config; {version} is filled in.")
    context_kwargs: dict[str, object] = Field({}, description="Added to strax.context_kwargs; {version} is filled in.")
    check: str | None = Field(
        None,
        description="Command line (no shell) that exits with 0 once a run has its corrections; {run}, {number}, "
        "{mode}, {start} and {version} are filled in. Its last words are the reason why the run waits.",
    )
    timeout_s: Seconds = Field(60, description="The command is stopped after that; the run waits.")
    query: CorrectionsQuery | None = Field(None, description="Instead of a command: a document that must be there.")

    @field_validator("check")
    @classmethod
    def _fits(cls, command: str | None) -> str | None:
        return None if command is None else check_command(command, CHECK_WORDS)


class Reprocessing(Section):
    """What a campaign makes, and from what; `straxflow reprocess` keeps it in the campaign's state folder, from where
    it comes here by itself.
    """

    products: list[Name] = Field(min_length=1, description="The products that are made anew.")
    source: Name = Field("online", alias="from", description="The campaign whose stored products they are made from.")
    corrections: str | None = Field(None, description="Version of the corrections.")
