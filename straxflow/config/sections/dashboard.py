"""The status page."""

from __future__ import annotations

from pydantic import Field

from straxflow.config.sections.base import Section


class Dashboard(Section):
    """The status page (`straxflow dashboard`)."""

    hosts: list[str] = Field(
        [],
        description="Names, besides those of loopback, by which browsers may ask for the page (the `Host` header), "
        "e.g. that of a reverse proxy; all others are refused.",
    )
    runs: int = Field(100, ge=1, le=500, description="Runs in the table, newest first.")
    refresh_s: float = Field(
        5, ge=1, le=300, description="The page is up to date to so many seconds; nothing is read while nobody looks."
    )
