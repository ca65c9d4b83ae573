"""Pulses of a small two-phase xenon detector, as digitizer counts, many at a time.

Raw counts as in a 14-bit digitizer: a baseline near 16000 with noise, and negative pulses. An event is an
S1 (20-100 ns) and, a drift time of 5-60 us later, an S2 (1-2 us wide), seen by all channels; dark counts
are single photo-electrons.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from straxflow.lab.daq.plan import EVENT_NS, MODES, PULSE_SAMPLES, RunPlan
from straxflow.livedata.records import record_dtype

_BANK = 64
_BLOCK = 2048
_PRE_SAMPLES = 42
_PE_COUNTS = 90.0
"""Area of a single photo-electron in counts x samples."""

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class Detector:
    """Makes the records of one run, period by period; each depends on the plan and its number alone."""

    def __init__(self, plan: RunPlan) -> None:
        self.plan = plan
        rng = np.random.default_rng([plan.seed, plan.number])
        self.baseline = rng.integers(15_950, 16_050, plan.n_channels).astype(np.float32)
        self.gain = rng.normal(1, 0.1, plan.n_channels).clip(0.7, 1.3)
        self.thread = rng.integers(0, 1 << 30)
        self.noise = rng.normal(0, 2.5, 1 << 17).astype(np.float32)
        self.bank = {kind: _bank(kind, plan.dt_ns, rng) for kind in PULSE_SAMPLES}

    def period(self, chunk: int) -> tuple[npt.NDArray[Any], Ints]:
        """Give the records that start in [chunk, chunk + 1) periods, ordered by pulse, and the number of
        the trigger that each belongs to. Nothing reaches over the end of the period.
        """
        plan = self.plan
        rng = np.random.default_rng([plan.seed, plan.number, chunk])
        start = chunk * plan.period_ns
        stop = min(start + plan.period_ns, int(plan.seconds * 1e9)) - EVENT_NS
        events = self._triggers(start, stop, rng)
        parts = [self._event_pulses(events, rng), self._dark_pulses(start, stop, events, rng)]
        time, channel, kind, area, trigger = (np.concatenate([part[i] for part in parts]) for i in range(5))
        order = np.lexsort((channel, time))
        return self._records(
            time[order] // plan.dt_ns * plan.dt_ns, channel[order], kind[order], area[order], rng
        ), np.repeat(trigger[order], self._n_fragments(kind[order]))

    def _triggers(self, start: int, stop: int, rng: np.random.Generator) -> Ints:
        rate = self.plan.event_rate_hz
        if stop <= start or rate < 1e-6:
            return np.empty(0, np.int64)
        if MODES[self.plan.mode].periodic:
            step = int(1e9 / rate)
            return np.arange(-(-start // step) * step, stop, step)
        mean = 1e9 / rate
        n = int((stop - start) / mean * 1.1 + 50 + 10 * np.sqrt((stop - start) / mean))
        times = start + np.cumsum(EVENT_NS + rng.exponential(mean - EVENT_NS, n)) - EVENT_NS
        return times[times < stop].astype(np.int64)

    def _event_pulses(self, t: Ints, rng: np.random.Generator) -> tuple[npt.NDArray[Any], ...]:
        n, n_channels = len(t), self.plan.n_channels
        if self.plan.mode == "led":
            pulses = [("led", t, rng.poisson(1.0, (n, n_channels)))]
        else:
            energy = rng.exponential(40.0, n) + 2
            # most of the S1 goes down to channel 0, the S2 is seen best by the top channel above it
            down = np.full(n_channels, 0.4 / max(n_channels - 1, 1))
            down[0] = 0.6
            spread = 0.1 + rng.dirichlet(np.full(n_channels, 2.0), n)
            spread /= spread.sum(axis=1, keepdims=True)
            drift = rng.integers(5_000, 60_000, n)
            pulses = [
                ("s1", t, rng.poisson(energy[:, None] * 4 * down)),
                ("s2", t + drift, rng.poisson(energy[:, None] * 150 * spread)),
            ]
        number = np.repeat(np.arange(n), n_channels)
        channel = np.tile(np.arange(n_channels), n)
        kinds = list(PULSE_SAMPLES)
        return tuple(
            np.concatenate(column)
            for column in zip(
                *(
                    (
                        np.repeat(time, n_channels),
                        channel,
                        np.full(n * n_channels, kinds.index(kind)),
                        (pe * self.gain * _PE_COUNTS).ravel().astype(np.float32),
                        number,
                    )
                    for kind, time, pe in pulses
                ),
                strict=True,
            )
        )

    def _dark_pulses(
        self, start: int, stop: int, events: Ints, rng: np.random.Generator
    ) -> tuple[npt.NDArray[Any], ...]:
        n_channels = self.plan.n_channels
        n = rng.poisson(self.plan.dark_rate_hz * n_channels * max(stop - start, 0) / 1e9)
        time = start + (rng.random(n) * max(stop - start, 0)).astype(np.int64)
        channel = rng.integers(0, n_channels, n)
        order = np.lexsort((time, channel))
        time, channel = time[order], channel[order]
        # a digitizer would join pulses that touch: leave out what comes in an event or upon another
        width = (PULSE_SAMPLES["dark"] + 10) * self.plan.dt_ns
        before = np.searchsorted(events, time + width) - 1
        free = np.ones(n, np.bool_)
        if len(events):
            free = (before < 0) | (time - events[before] > EVENT_NS)
        free[1:] &= (np.diff(time) > width) | (np.diff(channel) != 0)
        time, channel = time[free], channel[free]
        n = len(time)
        area = (rng.normal(1, 0.35, n).clip(0.2) * self.gain[channel] * _PE_COUNTS).astype(np.float32)
        return time, channel, np.full(n, list(PULSE_SAMPLES).index("dark")), area, np.arange(n)

    def _n_fragments(self, kind: npt.NDArray[Any]) -> Ints:
        counts: Ints = np.array([self.plan.fragments(k) for k in PULSE_SAMPLES])[kind]
        return counts

    def _records(
        self, time: Ints, channel: Ints, kind: Ints, area: Floats, rng: np.random.Generator
    ) -> npt.NDArray[Any]:
        plan, n = self.plan, self.plan.samples_per_record
        first = np.concatenate([[0], np.cumsum(self._n_fragments(kind))])
        records: npt.NDArray[Any] = np.zeros(first[-1], record_dtype(n))
        for number, (name, samples) in enumerate(PULSE_SAMPLES.items()):
            fragments = np.arange(plan.fragments(name))
            mine = np.flatnonzero(kind == number)
            # blocks that stay in the processor's cache
            for pulse in (mine[i : i + _BLOCK] for i in range(0, len(mine), _BLOCK)):
                rows = (first[pulse][:, None] + fragments).ravel()
                padded = np.zeros((len(pulse), len(fragments) * n), np.int16)
                padded[:, :samples] = self._waveforms(name, channel[pulse], area[pulse], rng)
                block: npt.NDArray[Any] = np.zeros(len(rows), records.dtype)
                block["data"] = padded.reshape(len(rows), n)
                block["time"] = (time[pulse][:, None] + fragments * (n * plan.dt_ns)).ravel()
                block["length"] = np.tile(np.minimum(samples - fragments * n, n), len(pulse))
                block["record_i"] = np.tile(fragments, len(pulse))
                block["channel"] = np.repeat(channel[pulse], len(fragments))
                block["baseline"] = self.baseline[block["channel"]]
                block["dt"], block["pulse_length"] = plan.dt_ns, samples
                records[rows] = block
        return records

    def _waveforms(self, kind: str, channel: Ints, area: Floats, rng: np.random.Generator) -> npt.NDArray[np.int16]:
        samples = PULSE_SAMPLES[kind]
        noise = np.lib.stride_tricks.sliding_window_view(self.noise, samples)
        wave = self.bank[kind][rng.integers(0, _BANK, len(channel))]
        wave *= -area[:, None]
        wave += noise[rng.integers(0, len(noise), len(channel))]
        wave += self.baseline[channel][:, None]
        return np.clip(wave, 0, 16_383, out=wave).astype(np.int16)


def _bank(kind: str, dt: int, rng: np.random.Generator) -> Floats:
    """Give `_BANK` shapes of unit area for a kind of pulse."""
    samples = PULSE_SAMPLES[kind]
    n_pe = {"s1": 40, "s2": 400, "dark": 1, "led": 3}[kind]
    t = rng.normal(0, 1, (_BANK, n_pe))
    if kind == "s1":
        t = rng.exponential(rng.uniform(20, 45, (_BANK, 1)), (_BANK, n_pe)) / dt
    elif kind == "s2":
        t = t * rng.uniform(250, 450, (_BANK, 1)) / dt + (samples - _PRE_SAMPLES) / 2
    else:
        t = t * 3 / dt
    index = (t + _PRE_SAMPLES).astype(np.int64).clip(0, samples - 4)
    hits = np.zeros((_BANK, samples), np.float32)
    np.add.at(hits, (np.arange(_BANK)[:, None], index), 1.0 / n_pe)
    # the PMT's single photo-electron: a fast rise, a slower fall
    shape = np.array([0.25, 0.45, 0.2, 0.1], np.float32)
    return np.stack([np.convolve(row, shape)[:samples] for row in hits]).astype(np.float32)
