"""Events: an S2 and the S1 before it, whose distance in time gives the depth of the interaction."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import strax

from straxflow.detectors.demo.peaks import S1, S2

Array = npt.NDArray[Any]


@strax.takes_config(
    strax.Option("max_drift", type=int, default=65_000, help="Longest drift time (ns)"),
    strax.Option("s2_min_area", type=float, default=100.0, help="Smaller S2s start no event (PE)"),
    strax.Option("drift_velocity", type=float, default=1.6e-4, help="Of electrons in liquid xenon (cm/ns)"),
    strax.Option("electron_lifetime", type=float, default=642e3, help="For the S2 correction (ns)"),
)
class Events(strax.Plugin):  # type: ignore[misc]
    """One entry for each large S2, with the largest S1 that can belong to it."""

    __version__ = "1.0.0"
    depends_on = ("peaks",)
    provides = "events"
    data_kind = "events"
    dtype = np.dtype(
        [
            *strax.time_fields,
            (("Area of the S1 (PE), 0 without one", "s1_area"), np.float32),
            (("Area of the S2 (PE)", "s2_area"), np.float32),
            (("Area of the S2 without loss of electrons (PE)", "cs2"), np.float32),
            (("Part of the S2 seen by the top channels", "s2_area_fraction_top"), np.float32),
            (("Time from S1 to S2 (ns), nan without an S1", "drift_time"), np.float32),
            (("Depth below the gate (cm), negative, nan without an S1", "z"), np.float32),
        ]
    )

    def compute(self, peaks: Array) -> Array:
        """Pair each large S2 with the largest S1 in the time of a full drift before it."""
        s1 = peaks[peaks["type"] == S1]
        s2 = peaks[(peaks["type"] == S2) & (peaks["area"] >= self.config["s2_min_area"])]
        center = s2["time"] + s2["center"].astype(np.int64)
        low = np.searchsorted(s1["time"], center - self.config["max_drift"])
        high = np.searchsorted(s1["time"], s2["time"])
        events: Array = np.zeros(len(s2), self.dtype)
        events["time"], events["endtime"] = s2["time"], s2["endtime"]
        events["s2_area"], events["s2_area_fraction_top"] = s2["area"], s2["area_fraction_top"]
        has = np.flatnonzero(low < high)
        best = np.array([a + np.argmax(s1["area"][a:b]) for a, b in zip(low[has], high[has], strict=True)], int)
        drift = np.full(len(s2), np.nan)
        drift[has] = center[has] - s1["time"][best] - s1["center"][best].astype(np.int64)
        events["time"][has] = s1["time"][best]
        events["s1_area"][has] = s1["area"][best]
        events["drift_time"] = drift
        events["z"] = -drift * self.config["drift_velocity"]
        events["cs2"] = events["s2_area"] * np.exp(np.nan_to_num(drift) / self.config["electron_lifetime"])
        # two S2s may share an S1; strax wants entries by time
        return events[np.argsort(events["time"], kind="stable")]
