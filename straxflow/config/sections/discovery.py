"""How runs are found where there is no run database."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from straxflow.config.sections.base import Seconds, Section


class Discovery(Section):
    """How runs are found in the DAQ's folders and described, for `rundb.kind: folders`. Times that neither
    `facts_file` nor `facts_command` tells are those of the files: the first one's, and the sign's or the last one's.
    """

    ended: str | None = Field(
        "THE_END",
        description="A run has ended once its folder holds such a file or folder (a pattern); absent: `quiet_s` tells.",
    )
    quiet_s: float = Field(0, ge=0, description="... and once none of its files changed for so long, in seconds.")
    look_s: Seconds = Field(2, description="One process looks into the DAQ's folders at most so often, in seconds.")
    mode: str = Field("run", min_length=1, description="The mode of runs whose facts do not tell it.")
    document: dict[str, object] = Field(
        {}, description="What every run document holds, e.g. `detectors` and `daq_config`; facts are laid over it."
    )
    facts_file: str | None = Field(
        None,
        description="A file with facts of a run (JSON or YAML: start, end, mode, detectors, source, rate, tags, "
        "daq_config), beside or in the runs' folders: {folder}, {run}, {number} and {experiment} are filled in, e.g. "
        "`{folder}.json`. A run is not taken up before it is there.",
    )
    facts_command: str | None = Field(
        None,
        description="A program on this host that prints such facts as JSON; {run}, {number}, {experiment} and "
        "{folder} (with its path) are filled in, no shell is involved.",
    )

    @field_validator("facts_file", "facts_command")
    @classmethod
    def _template(cls, template: str | None) -> str | None:
        if template is not None:
            try:
                template.format(run="run", number=932, experiment="exp", folder="folder")
            except (KeyError, IndexError, ValueError) as error:
                raise ValueError(
                    f"is no template of {{folder}}, {{run}}, {{number}}, {{experiment}}: {error}"
                ) from error
        return template

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if self.ended is None and not self.quiet_s:
            raise ValueError("`ended` or `quiet_s` must tell when a run has ended")
        return self
