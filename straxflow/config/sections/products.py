"""Products: what one job makes."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Literal, Self

from pydantic import Field, model_validator

from straxflow.config.sections.base import Count, Name, Seconds, Section
from straxflow.config.sections.resources import Resources
from straxflow.config.words import check_command

COMMAND_WORDS = ("run", "number", "mode", "source", "output", "product", "corrections")
SUMMARY_WORDS = ("run", "number", "mode", "product", "data", "output")


class Modes(Section):
    """Run modes (patterns with * and ?) for which a product is made."""

    include: list[str] = Field(["*"], description="Made for these modes.")
    exclude: list[str] = Field([], description="But not for these.")

    def match(self, mode: str) -> bool:
        """Whether a product is made for this mode."""
        return any(fnmatchcase(mode, p) for p in self.include) and not any(fnmatchcase(mode, p) for p in self.exclude)


class Product(Section):
    """What one job makes: strax data types, or the result of a command."""

    source: str = Field(alias="from", description="`live`, or the product it is made from.")
    kind: Literal["strax", "command"] = Field("strax", description="Made by strax, or by any command.")
    targets: list[Name] = Field([], description="strax data types; by default the product's name.")
    modes: Modes = Field(Modes(), description="Run modes it is made for.")
    command: str | None = Field(
        None,
        description="kind command: the command line; {run}, {number}, {mode}, {source}, {output}, {product} and "
        "{corrections} (of a reprocessing campaign, else empty) are filled in, no shell is involved. It must leave its "
        "files in {output}.",
    )
    context: str | None = Field(
        None, pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", description="Instead of strax.context."
    )
    context_kwargs: dict[str, object] = Field({}, description="Added to strax.context_kwargs.")
    config: dict[str, object] = Field({}, description="Added to strax.config.")
    workers: Count | None = Field(None, description="Instead of strax.workers.")
    timeout_s: Seconds | None = Field(None, description="Instead of strax.timeout_s.")
    resources: Resources | None = Field(None, description="Instead of resources.process.")
    counted: str = Field(
        "raw_records*",
        description="Data types (a pattern) of a product made from live data whose records must be as many as came in.",
    )
    keep_staging: bool = Field(False, description="Never drop the staging copy.")
    summary: str | None = Field(
        None,
        description="A command line for the online monitor, run once the product is made: it reads the data folder "
        '{data} and writes `summary.json`, `{"values": {"events": 1200}}`, and if it likes `plot.svg` or '
        "`plot.png` into {output}; {run}, {number}, {mode} and {product} are filled in too, and `python` is the one "
        "of strax.python. If it fails there is no summary, nothing else.",
    )
    summary_timeout_s: Seconds = Field(300, description="A summary that takes longer is stopped.")

    @model_validator(mode="after")
    def _command_fits_kind(self) -> Self:
        if self.kind == "command" and not self.command:
            raise ValueError("kind command needs a `command`")
        if self.kind == "strax" and self.command:
            raise ValueError("`command` is for kind command")
        if self.command:
            check_command(self.command, COMMAND_WORDS)
        if self.summary:
            check_command(self.summary, SUMMARY_WORDS)
        if self.kind == "command" and self.targets:
            raise ValueError("`targets` is for kind strax")
        return self
