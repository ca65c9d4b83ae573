"""What the run document says about a run's live data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from straxflow.livedata.records import Window

MAX_CHANNEL = 999
MAX_ADC = (1 << 14) - 1


@dataclass(frozen=True)
class LiveExpectation:
    """What the run document says about a run's live data.

    `length_tolerance_s` is how far the document's start and end may be from the first and last trigger:
    chunks that are missing at the end go unnoticed if they cover less than this.
    """

    run: str
    start: datetime
    end: datetime
    chunk_length_s: float
    chunk_overlap_s: float
    processing_threads: Mapping[str, int]
    samples_per_record: int = 110
    compressor: str = "lz4"
    length_tolerance_s: float = 2.0
    max_channel: int = MAX_CHANNEL
    max_adc: int = MAX_ADC

    @property
    def length_ns(self) -> int:
        """Length of a chunk without its overlap."""
        return int(self.chunk_length_s * 1e9)

    @property
    def period_ns(self) -> int:
        """Time from the start of one chunk to the start of the next."""
        return self.length_ns + int(self.chunk_overlap_s * 1e9)

    def window(self, chunk: int, overlap: bool) -> Window:
        """Give the times of a chunk, or of the overlap after it (its `_post` and the next `_pre`)."""
        start = chunk * self.period_ns
        middle, end = start + self.length_ns, start + self.period_ns
        low, high = (middle, end) if overlap else (start, middle)
        return Window(low, high, self.samples_per_record, self.max_channel, self.max_adc)
