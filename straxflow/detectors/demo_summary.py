"""Figures and a plot of the events of a run, for the online monitor: `python -m ... DATA_FOLDER OUTPUT_FOLDER`.

Reads the files of strax with NumPy alone: importing strax takes ten times longer than all that is done here.
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

import blosc
import numpy as np
import numpy.typing as npt

from straxflow.straxjob.validate import read_metadata

Array = npt.NDArray[Any]

BINS = np.arange(0, 66, 2.0)
"""Drift time, microseconds."""
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 360, 180, 40, 30, 22


def main(words: list[str]) -> int:
    """Write summary.json and plot.svg."""
    folder, output = Path(words[0]), Path(words[1])
    metadata = read_metadata(folder)
    events = load(folder, metadata)
    seconds = (metadata["end"] - metadata["start"]) / 1e9
    text = json.dumps({"values": figures(events, seconds)}, indent=1)
    (output / "summary.json").write_text(text, encoding="utf-8")
    drift = events["drift_time"][np.isfinite(events["drift_time"])] / 1e3
    (output / "plot.svg").write_text(histogram(drift, "drift time (µs)", "events"), encoding="utf-8")
    return 0


def load(folder: Path, metadata: dict[str, Any]) -> Array:
    """All entries of a folder of strax data."""
    dtype = np.dtype(ast.literal_eval(metadata["dtype"]))
    chunks = [
        np.frombuffer(blosc.decompress((folder / chunk["filename"]).read_bytes()), dtype)
        for chunk in metadata["chunks"]
        if chunk["n"]
    ]
    return np.concatenate(chunks) if chunks else np.zeros(0, dtype)


def figures(events: Array, seconds: float) -> dict[str, float | int | None]:
    """What is worth watching from run to run."""
    paired = events[events["s1_area"] > 0]
    return {
        "events": len(events),
        "with an S1": len(paired),
        "rate (Hz)": round(len(events) / seconds, 3) if seconds > 0 else None,
        "median S1 (PE)": _median(paired["s1_area"]),
        "median S2 (PE)": _median(events["s2_area"]),
        "longest drift (µs)": round(float(paired["drift_time"].max()) / 1e3, 2) if len(paired) else None,
    }


def _median(values: Array) -> float | None:
    return round(float(np.median(values)), 2) if len(values) else None


def histogram(values: Array, label: str, what: str) -> str:
    """A histogram as SVG; light in itself, so that it can be read on a page of any colour."""
    counts, edges = np.histogram(values, BINS)
    most = max(int(counts.max()), 1)
    across = (WIDTH - LEFT - 8) / (edges[-1] - edges[0])
    up = (HEIGHT - TOP - BOTTOM) / most
    floor = HEIGHT - BOTTOM
    bars = "".join(
        f'<rect x="{LEFT + (edge - edges[0]) * across:.1f}" y="{floor - n * up:.1f}" '
        f'width="{(edges[1] - edges[0]) * across - 1:.1f}" height="{n * up:.1f}"/>'
        for n, edge in zip(counts, edges, strict=False)
        if n
    )
    ticks = "".join(
        f'<text x="{LEFT + (x - edges[0]) * across:.1f}" y="{floor + 12}" text-anchor="middle">{x:g}</text>'
        for x in range(int(edges[0]), int(edges[-1]) + 1, 10)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="sans-serif" font-size="10" fill="#475569"><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
        f'<g fill="#3b82f6">{bars}</g><path d="M{LEFT} {TOP - 6}V{floor}H{WIDTH - 8}" fill="none" stroke="#94a3b8"/>'
        f'{ticks}<text x="{LEFT - 5}" y="{TOP + 4}" text-anchor="end">{most}</text>'
        f'<text x="{LEFT - 5}" y="{floor}" text-anchor="end">0</text>'
        f'<text x="{WIDTH - 8}" y="{HEIGHT - 5}" text-anchor="end">{label}</text>'
        f'<text x="{LEFT + 6}" y="{TOP - 8}">{what}: {len(values)}</text></svg>\n'
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
