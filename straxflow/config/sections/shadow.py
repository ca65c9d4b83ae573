"""Beside an older tool: working on the same runs without being seen."""

from __future__ import annotations

from pydantic import Field

from straxflow.config.sections.base import Section


class Shadow(Section):
    """Beside an older tool: runs are processed to this site's own folders and store, and of the run documents only
    `straxflow.<campaign>` is written: states, claims and data entries stand there, and nothing that others read
    changes. `straxflow compare` compares the data.
    """

    enabled: bool = Field(False, description="Work as a shadow.")
    states: list[str] = Field(
        ["done"],
        min_length=1,
        description="Runs to which the older tool gave one of these states are worked on; `*`: any run whose live data "
        "are registered at the DAQ's host.",
    )
