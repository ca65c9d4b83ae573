"""Peaks: hits of all channels that belong together, told apart as S1 and S2 by their width."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import strax

Array = npt.NDArray[Any]

UNKNOWN, S1, S2 = 0, 1, 2


@strax.takes_config(
    strax.Option("peak_gap", type=int, default=700, help="A longer time without hits ends a peak (ns)"),
    strax.Option("n_top", type=int, default=4, help="Photomultipliers above the gas; channel 0 is below"),
    strax.Option("peak_min_channels", type=int, default=2, help="Fewer channels: dark counts, type 0"),
    strax.Option("s1_max_width", type=float, default=90.0, help="Wider peaks are S2s (ns, RMS)"),
)
class Peaks(strax.Plugin):  # type: ignore[misc]
    """Groups of hits, with area, width and where the light went."""

    __version__ = "1.0.0"
    depends_on = ("hits",)
    provides = "peaks"
    data_kind = "peaks"
    # the reader's cuts lie in the longest quiet times: kept, no event is ever split between chunks
    rechunk_on_save = False
    dtype = np.dtype(
        [
            *strax.time_fields,
            (("Integral (PE)", "area"), np.float32),
            (("Part of the area seen by the top channels", "area_fraction_top"), np.float32),
            (("Mean time of the light after the start (ns)", "center"), np.float32),
            (("Root mean square width in time (ns)", "width"), np.float32),
            (("Hits in the peak", "n_hits"), np.int32),
            (("Channels that see the peak", "n_channels"), np.int16),
            (("0: unknown, 1: S1, 2: S2", "type"), np.int8),
        ]
    )

    def compute(self, hits: Array) -> Array:
        """Cut the hits where nothing happens for longer than `peak_gap`."""
        if not len(hits):
            return np.zeros(0, self.dtype)
        length = hits["length"].astype(np.int64) * hits["dt"]
        ends = np.maximum.accumulate(hits["time"] + length)
        new = np.append(True, hits["time"][1:] - ends[:-1] > self.config["peak_gap"])
        first = np.flatnonzero(new)
        peak = np.cumsum(new) - 1

        peaks: Array = np.zeros(len(first), self.dtype)
        peaks["time"] = hits["time"][first]
        peaks["endtime"] = np.append(ends[first[1:] - 1], ends[-1])
        area = np.maximum(hits["area"].astype(np.float64), 1e-6)
        total = np.add.reduceat(area, first)
        middle = hits["time"] - peaks["time"][peak] + length / 2
        center = np.add.reduceat(area * middle, first) / total
        # within a hit, light is spread evenly: that adds length^2 / 12
        variance = np.add.reduceat(area * ((middle - center[peak]) ** 2 + length**2 / 12), first) / total
        top = (hits["channel"] >= 1) & (hits["channel"] <= self.config["n_top"])
        peaks["area"], peaks["center"], peaks["width"] = total, center, np.sqrt(variance)
        peaks["area_fraction_top"] = np.add.reduceat(area * top, first) / total
        peaks["n_hits"] = np.diff(first, append=len(hits))
        # one entry for each channel of each peak
        peaks["n_channels"] = np.bincount(np.unique(peak * 1000 + hits["channel"]) // 1000, minlength=len(peaks))
        peaks["type"] = np.where(peaks["width"] > self.config["s1_max_width"], S2, S1)
        peaks["type"][peaks["n_channels"] < self.config["peak_min_channels"]] = UNKNOWN
        return peaks
