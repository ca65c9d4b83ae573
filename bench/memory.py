"""Peak memory of each step's own process, which must not follow the size of files, nor that of runs."""

from __future__ import annotations

from collections.abc import Mapping

from bench.result import Result, Table, judge
from bench.site import COPY, Lab, Site, make_site
from straxflow.attempts import all_of
from straxflow.lab.daq import Daq, RunPlan

GOAL_MB, GROWTH_GOAL_MB = 150.0, 20.0
# MB of records, and chunks: one chunk's file holds nearly all of a run, compressed to two thirds
GROWING_FILE = ((75.0, 1), (1450.0, 1))
GROWING_RUN = ((290.0, 100), (1450.0, 500))
QUICK_FILE = ((7.5, 1), (145.0, 1))
Peaks = Mapping[str, float]


def bench(lab: Lab, quick: bool) -> Result:
    """Take runs through all steps; `cp` is the product, so that its files are as large."""
    found: dict[str, Peaks] = {}
    growths = []
    for small, large in [QUICK_FILE] if quick else [GROWING_FILE, GROWING_RUN]:
        (name, before), (larger, after) = _peaks(lab, *small), _peaks(lab, *large)
        found |= {name: before, larger: after}
        growths.append(max(after[step] - before[step] for step in before))
    first = next(iter(found.values()))
    rows = [[step, *(f"{peaks[step]:.0f}" for peaks in found.values())] for step in first]
    return Result(
        "memory",
        "Peak resident memory of each step's own process (VmHWM), MB; the live-data check is part of transfer; the "
        "product is a copy of the live data, so that all steps meet files as large and as many",
        [
            judge(
                "largest process of a step, beyond strax",
                max(peak for peaks in found.values() for peak in peaks.values()),
                GOAL_MB,
                " MB",
            ),
            *(
                judge(f"the most that a step grows with the size of {of}", growth, GROWTH_GOAL_MB, " MB")
                for of, growth in zip(("a file", "a run"), growths, strict=False)
            ),
        ],
        [Table("Peak resident memory, MB", ["step", *found], rows)],
        [
            "Many files take two threads, and a buffer for each; what is known of a file, some 4 kB, is kept until the "
            "run is whole."
        ],
    )


def _peaks(lab: Lab, size_mb: float, chunks: int) -> tuple[str, Peaks]:
    """What the run is, in words, and the peak of each of its steps, MB."""
    name = f"memory_{size_mb:.0f}_{chunks}"
    site = make_site(lab, name, lab.folder / f"daq_{name}", {"products": COPY})
    # a little longer, so that there is no rest
    length_s = 1.01 * RunPlan(1, size_mb=size_mb).seconds / chunks
    plan = RunPlan(1, size_mb=size_mb, chunk_length_s=length_s, processing_threads={"reader0": 1})
    Daq(site.config.daq.folder, lab.runs(site.name), "demo-daq").take(plan)
    site.snakemake()
    try:
        return _files(site), {
            a.step: a.own_peak_rss_mb or 0.0 for a in (f.attempt for f in all_of(site.state, "000001"))
        }
    finally:
        site.remove()


def _files(site: Site) -> str:
    sizes = sorted(file.stat().st_size / 1e6 for file in site.config.daq.folder.rglob("*") if file.is_file())
    # those of a chunk are of one size, and those of what two chunks share far smaller
    large = [size for size in sizes if size > sizes[-1] / 2]
    return f"{len(large)} file{'s' * (len(large) > 1)} of {large[0]:.3g} MB"
