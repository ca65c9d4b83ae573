"""Pulses: baseline-free records, hits above threshold, and the areas of LED flashes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import strax

from straxflow.detectors.demo.reader import ARTIFICIAL_DEADTIME_CHANNEL

Array = npt.NDArray[Any]

# samples of this many records stay in the processor's cache
BLOCK = 4096
COUNTS_PER_PE = 90.0


def baselines(raw: Array, n_samples: int) -> npt.NDArray[np.float32]:
    """Return each record's baseline (ADC counts): the mean of the first samples of the pulse it belongs to."""
    first = raw["data"][:, :n_samples].mean(axis=1, dtype=np.float32)
    order = np.lexsort((raw["time"], raw["channel"]))
    # in order of channel and time, later fragments directly follow the first one of their pulse
    head = np.where(raw["record_i"][order] == 0, np.arange(len(raw)), 0)
    result = np.empty(len(raw), np.float32)
    result[order] = first[order][np.maximum.accumulate(head)]
    return result


@strax.takes_config(
    strax.Option("baseline_samples", type=int, default=16, help="Samples at a pulse's start for its baseline"),
)
class Records(strax.Plugin):  # type: ignore[misc]
    """Waveforms above baseline, positive."""

    __version__ = "1.0.0"
    depends_on = ("raw_records",)
    provides = "records"
    data_kind = "records"
    save_when = strax.SaveWhen.EXPLICIT
    compressor = "lz4"

    def infer_dtype(self) -> Any:
        """Return strax' record type, of the same length as raw_records."""
        return strax.record_dtype(self.deps["raw_records"].dtype["data"].shape[0])

    def compute(self, raw_records: Array) -> Array:
        """Subtract baselines and flip."""
        raw = raw_records
        if (raw["channel"] == ARTIFICIAL_DEADTIME_CHANNEL).any():
            raw = raw[raw["channel"] != ARTIFICIAL_DEADTIME_CHANNEL]
        records: Array = np.zeros(len(raw), self.dtype)
        for name in ("time", "length", "dt", "channel", "pulse_length", "record_i"):
            records[name] = raw[name]
        records["baseline"] = baselines(raw, self.config["baseline_samples"])
        sample = np.arange(raw["data"].shape[1])
        for i in range(0, len(raw), BLOCK):
            part = slice(i, i + BLOCK)
            whole = np.rint(records["baseline"][part]).astype(np.int16)
            data = whole[:, None] - raw["data"][part]
            data[sample >= raw["length"][part, None]] = 0
            records["data"][part] = data
            records["area"][part] = data.sum(axis=1, dtype=np.int32)
        return records


@strax.takes_config(
    strax.Option("hit_threshold", type=int, default=13, help="Threshold above baseline (ADC counts)"),
)
class Hits(strax.Plugin):  # type: ignore[misc]
    """Stretches of samples above threshold within a record."""

    __version__ = "1.0.0"
    depends_on = ("records",)
    provides = "hits"
    data_kind = "hits"
    save_when = strax.SaveWhen.EXPLICIT
    dtype = np.dtype(
        [
            *strax.interval_dtype,
            (("Integral (PE)", "area"), np.float32),
            (("Highest sample above baseline (ADC counts)", "height"), np.int16),
        ]
    )

    def compute(self, records: Array) -> Array:
        """Find the stretches of each record, all at once."""
        hits = [self._find(records[i : i + BLOCK]) for i in range(0, len(records), BLOCK)]
        found: Array = np.concatenate([*hits, np.zeros(0, self.dtype)])
        return found[np.lexsort((found["channel"], found["time"]))]

    def _find(self, records: Array) -> Array:
        data = records["data"]
        above = np.zeros((len(data), data.shape[1] + 2), np.int8)
        above[:, 1:-1] = data > self.config["hit_threshold"]
        edge = np.diff(above, axis=1)
        record, left = np.nonzero(edge == 1)
        right = np.nonzero(edge == -1)[1]
        hits: Array = np.zeros(len(record), self.dtype)
        for name in ("dt", "channel"):
            hits[name] = records[name][record]
        hits["time"] = records["time"][record] + left * records["dt"][record].astype(np.int64)
        hits["length"] = right - left
        if len(hits):
            flat = data.ravel()
            start = record * data.shape[1] + left
            # reduceat takes [start, stop) pairs; a last stop at the very end may not be named
            bounds = np.stack([start, start + right - left], axis=1).ravel()
            bounds = bounds[:-1] if bounds[-1] == len(flat) else bounds
            hits["area"] = np.add.reduceat(flat, bounds, dtype=np.int64)[::2] / COUNTS_PER_PE
            hits["height"] = np.maximum.reduceat(flat, bounds)[::2]
        return hits


@strax.takes_config(
    strax.Option("baseline_samples", type=int, default=16, help="Samples at a pulse's start for its baseline"),
    strax.Option("led_window", default=(36, 60), type=tuple, help="First and last+1 sample of the flash"),
)
class LedCalibration(strax.Plugin):  # type: ignore[misc]
    """Area in a fixed window after each LED flash: its spectrum gives the gain of each channel."""

    __version__ = "1.0.0"
    depends_on = ("raw_records",)
    provides = "led_calibration"
    data_kind = "led_calibration"
    dtype = np.dtype(
        [
            *strax.interval_dtype,
            (("Integral in the window (ADC counts x samples)", "area"), np.float32),
            (("Highest sample in the window above baseline (ADC counts)", "amplitude"), np.float32),
        ]
    )

    def compute(self, raw_records: Array) -> Array:
        """Integrate the window of each pulse's first record."""
        raw = raw_records[(raw_records["record_i"] == 0) & (raw_records["channel"] != ARTIFICIAL_DEADTIME_CHANNEL)]
        result: Array = np.zeros(len(raw), self.dtype)
        for name in ("time", "length", "dt", "channel"):
            result[name] = raw[name]
        window = slice(*self.config["led_window"])
        height = baselines(raw, self.config["baseline_samples"])[:, None] - raw["data"][:, window]
        result["area"] = height.sum(axis=1)
        result["amplitude"] = height.max(axis=1, initial=-np.inf)
        return result
