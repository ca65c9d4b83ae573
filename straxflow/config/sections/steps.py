"""How the steps do their work."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from straxflow.config.sections.base import Count, Seconds, Section
from straxflow.errors import ConfigError


def _leaves_the_verification(argument: str) -> str:
    from straxflow.transport.rsync import check_args

    try:
        check_args([argument])
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return argument


RsyncWord = Annotated[str, AfterValidator(_leaves_the_verification)]


class Transfer(Section):
    """How live data is brought in."""

    rsync_args: list[RsyncWord] = Field([], description="More arguments for rsync, e.g. ['--bwlimit=80M'].")
    max_parallel: Count = Field(2, description="Transfers at once in the whole site, over all invocations.")
    streams: Count = Field(
        1,
        description="Connections at most that bring one run side by side. More than one help only over a long line: "
        "`straxflow check` measures it, and says how many. A --bwlimit holds for each.",
    )
    timeout_s: Seconds = Field(60, description="A connection that is silent for so long is closed.")
    retries: int = Field(3, ge=0, description="Lost connections resumed within one attempt.")
    slot_wait_s: float = Field(
        1200, ge=0, description="How long a transfer waits for others to end before it gives way and is tried again."
    )
    wait_s: float = Field(60, ge=0, description="How long to wait for a run that is still being written.")
    length_tolerance_s: float = Field(
        2, ge=0, description="How far the run's start and end in its document may be from its data; s."
    )
    check: bool = Field(True, description="Check the format of the live data after its arrival (redax).")


class Strax(Section):
    """How strax is run."""

    python: list[str] = Field(
        ["python"],
        min_length=1,
        description="Command that is Python with strax: a path, or e.g. ['conda', 'run', '-n', 'strax', 'python'] "
        "or ['apptainer', 'exec', 'strax.sif', 'python']. ['python'] alone is straxflow's own.",
    )
    environment: dict[str, str] = Field({}, description="Environment variables for it.")
    context: str = Field(
        "straxflow.detectors.demo:context",
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="module:function that makes the context.",
    )
    context_kwargs: dict[str, object] = Field({}, description="Keyword arguments for that function.")
    config: dict[str, object] = Field({}, description="strax options that override the context's.")
    workers: Count = Field(1, description="max_workers of strax.")
    timeout_s: Seconds = Field(72 * 3600, description="A process that runs longer is stopped.")
    from_scratch: bool = Field(False, description="Make data anew even if it is already stored.")
    max_gap_s: float = Field(
        2, ge=0, description="How much of a run's start or end a product may leave uncovered, in seconds."
    )


class Release(Section):
    """What is dropped when a run is stored."""

    staging: Literal["drop", "keep"] = Field("drop", description="The staging copies of products.")
    live: Literal["drop", "keep"] = Field(
        "keep",
        description="The live copy here; dropped only after two other copies were re-read and matched.",
    )
