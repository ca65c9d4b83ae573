"""What a monitor is warned of."""

from __future__ import annotations

from pydantic import Field

from straxflow.config.sections.base import Section


class Health(Section):
    """Limits of `straxflow health`, which a monitor calls; its options go over them."""

    watcher: bool = Field(True, description="Whether a watcher has to be running.")
    watcher_silent_s: float = Field(300, gt=0, description="Critical if the watcher has been silent for so long.")
    pending_warning_h: float | None = Field(6, ge=0, description="A run that has been pending for so long: a warning.")
    pending_critical_h: float | None = Field(24, ge=0, description="A run that has been pending for so long: critical.")
    quiet_warning_h: float | None = Field(
        None, ge=0, description="No new run for so long: a warning; absent: runs may be as far apart as they like."
    )
    quiet_critical_h: float | None = Field(None, ge=0, description="No new run for so long: critical.")
    left_warning: int | None = Field(1, ge=1, description="So many runs are left to a person: a warning.")
    left_critical: int | None = Field(None, ge=1, description="So many runs are left to a person: critical.")
    free_warning_percent: float = Field(10, ge=0, le=100, description="Less than this is free on a disk: a warning.")
    free_critical_percent: float = Field(3, ge=0, le=100, description="Less than this is free on a disk: critical.")
