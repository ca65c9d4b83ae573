"""What all sections share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Step = Literal["transfer", "process", "checksum", "move_out", "register", "release"]
STEPS: tuple[Step, ...] = ("transfer", "process", "checksum", "move_out", "register", "release")
LIVE = "live"

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]
# what ssh takes for a host, and never for an option
Host = Annotated[
    str, Field(pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.-]*@)?([A-Za-z0-9][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\])$")
]


class Section(BaseModel):
    """A part of the configuration; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    @field_validator("*")
    @classmethod
    def _can_be_told(cls, value: Any) -> Any:
        _check_characters(value)
        return value


def _check_characters(value: Any) -> None:
    """No program can be given a NUL; a path with other control characters is a mistake."""
    if isinstance(value, str) and "\0" in value:
        raise ValueError("holds a NUL character")
    if isinstance(value, Path) and any(ord(letter) < 32 or ord(letter) == 127 for letter in str(value)):
        raise ValueError("holds a line break or another control character")
    if isinstance(value, list):
        for inner in value:
            _check_characters(inner)
    if isinstance(value, Mapping):
        for pair in value.items():
            _check_characters(list(pair))
