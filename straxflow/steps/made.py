"""What strax or a command made for a process step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from straxflow.receipts import Target


@dataclass(frozen=True)
class Made:
    """What a program left in scratch (or found stored already), and what it took."""

    targets: dict[str, Target]
    folders: dict[str, Path]
    already_stored: dict[str, Path]
    versions: dict[str, str]
    cpu_seconds: float
    peak_rss_mb: float
    dead_time_records: int = 0
    dead_time_ns: int = 0
