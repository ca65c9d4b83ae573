"""How `straxflow watch` keeps a site going."""

from __future__ import annotations

from pydantic import Field

from straxflow.config.sections.base import Count, Seconds, Section


class Watch(Section):
    """How `straxflow watch` keeps a site going."""

    max_invocations: Count = Field(
        3,
        description="Snakemake invocations at once, at most. With two or more, the last one is kept for runs that are "
        "newer than all that are being worked on, or tagged `prioritize`: a backlog never makes a new run wait.",
    )
    poll_s: Seconds = Field(2, description="How often the run database is asked whether something is due, in seconds.")
    lease_s: float = Field(
        60,
        ge=3,
        description="A watcher that is silent for so long is taken for dead by one that waits on another host, in s.",
    )
    stall_s: Seconds = Field(
        900,
        description="An invocation hangs if nothing moved and no job ran for so long: it is replaced, in s.",
    )
    grace_s: Seconds = Field(
        60, description="How long an invocation that is to stop at once may take to cancel its jobs, in seconds."
    )
    keep: Count = Field(500, description="Logs and batch files of so many ended invocations are kept.")
