"""What a simulated run is to be like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from straxflow.livedata.records import record_dtype

EVENT_NS = 80_000
"""An event (S1, drift, S2) is over by then; the next one begins later, so pulses never overlap."""

PULSE_SAMPLES = MappingProxyType({"s1": 100, "s2": 420, "dark": 70, "led": 100})
"""Samples per pulse. None but s2 is as long as one record of 110."""


@dataclass(frozen=True)
class Mode:
    """What triggers in a mode, at which rate (per second) unless the plan says otherwise."""

    pulses: tuple[str, ...]
    rate_hz: float
    periodic: bool = False


MODES: Mapping[str, Mode] = MappingProxyType(
    {
        "background": Mode(("s1", "s2"), 200.0),
        "calibration": Mode(("s1", "s2"), 3000.0),
        "led": Mode(("led",), 1000.0, periodic=True),
    }
)


@dataclass(frozen=True)
class RunPlan:
    """One run to take; the same plan always gives the same bytes.

    Of `size_mb` (plain MB of records, an overlap counted once; about right), `duration_s` and `rate_hz`
    (events or flashes per second) give at most two; a rate that is neither given nor implied is the
    mode's own. Raises ValueError for a plan that cannot be.
    """

    number: int
    mode: str = "background"
    size_mb: float | None = None
    duration_s: float | None = None
    rate_hz: float | None = None
    seed: int = 1
    compressor: str = "lz4"
    n_channels: int = 5
    processing_threads: Mapping[str, int] = field(default_factory=lambda: {"reader0": 2})
    chunk_length_s: float = 0.0
    """0: 5 s, or a quarter of a run of less than 20 s."""
    chunk_overlap_s: float = 0.0
    """0: a tenth of the chunk's length."""
    fragment_payload_bytes: int = 220
    dt_ns: int = 10
    dark_rate_hz: float = 100.0
    """Single photo-electrons per second and channel."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode {self.mode!r} is none of {', '.join(MODES)}")
        given = [v for v in (self.size_mb, self.duration_s, self.rate_hz) if v is not None]
        if len(given) > 2:
            raise ValueError("of size_mb, duration_s and rate_hz give at most two")
        if self.size_mb is None and self.duration_s is None:
            raise ValueError("give size_mb or duration_s")
        if not self.seconds > 0:
            raise ValueError(f"a run of {self.seconds} s cannot be taken")
        if not 0 <= self.event_rate_hz <= 0.9e9 / EVENT_NS:
            raise ValueError(
                f"{self.event_rate_hz:.0f} events per second: at most {0.9e9 / EVENT_NS:.0f} can be told "
                "apart, at least 0; change size_mb, duration_s or n_channels"
            )
        # amstrax' reader takes no run that ends before its first overlap: short runs get shorter chunks
        if not self.chunk_length_s:
            object.__setattr__(self, "chunk_length_s", round(min(5.0, self.seconds / 4), 3))
        if not self.chunk_overlap_s:
            object.__setattr__(self, "chunk_overlap_s", round(self.chunk_length_s / 10, 4))
        if self.chunk_overlap_s * 1e9 < 2 * EVENT_NS or self.chunk_length_s * 1e9 < 2 * EVENT_NS:
            raise ValueError("chunks and overlaps must hold some events: make them longer")

    @property
    def samples_per_record(self) -> int:
        """Samples of a fragment."""
        return self.fragment_payload_bytes // 2

    def fragments(self, kind: str) -> int:
        """Records per pulse of a kind."""
        return -(-PULSE_SAMPLES[kind] // self.samples_per_record)

    @property
    def period_ns(self) -> int:
        """Time from the start of one chunk to the start of the next."""
        return int(self.chunk_length_s * 1e9) + int(self.chunk_overlap_s * 1e9)

    @property
    def _event_bytes(self) -> float:
        per_channel = sum(self.fragments(kind) for kind in MODES[self.mode].pulses)
        return self.n_channels * per_channel * record_dtype(self.samples_per_record).itemsize

    @property
    def _dark_bytes_per_s(self) -> float:
        size = record_dtype(self.samples_per_record).itemsize
        return self.n_channels * self.dark_rate_hz * self.fragments("dark") * size

    @cached_property
    def seconds(self) -> float:
        """Length of the run."""
        if self.duration_s is not None:
            return self.duration_s
        assert self.size_mb is not None
        rate = MODES[self.mode].rate_hz if self.rate_hz is None else self.rate_hz
        return self.size_mb * 1e6 / (rate * self._event_bytes + self._dark_bytes_per_s)

    @cached_property
    def event_rate_hz(self) -> float:
        """Events (or flashes) per second."""
        if self.rate_hz is not None:
            return self.rate_hz
        if self.size_mb is None or self.duration_s is None:
            return MODES[self.mode].rate_hz
        return (self.size_mb * 1e6 / self.duration_s - self._dark_bytes_per_s) / self._event_bytes
