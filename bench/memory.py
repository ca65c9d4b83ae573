"""Peak memory of each step's own process, which must not follow the size of files."""

from __future__ import annotations

from bench.result import Result, Table, judge
from bench.site import Lab, make_site
from straxflow.attempts import all_of
from straxflow.lab.daq import Daq, RunPlan

GOAL_MB = 150.0
# of records; one file of the live data holds nearly all of them, compressed to two thirds
SIZES_MB, QUICK_SIZES_MB = (75.0, 1450.0), (7.5, 145.0)


def bench(lab: Lab, quick: bool) -> Result:
    """Take runs of one chunk and one thread through all steps; `cp` is the product, so that its file is as large."""
    product = {"from": "live", "kind": "command", "command": "cp -r {source}/{run} {output}"}
    changes = {"products": {"copy": product}, "release": {"staging": "drop", "live": "keep"}}
    found: dict[str, dict[str, float]] = {}
    for size_mb in QUICK_SIZES_MB if quick else SIZES_MB:
        site = make_site(lab, f"memory{size_mb:.0f}", lab.folder / f"daq{size_mb:.0f}", changes)
        length_s = RunPlan(1, size_mb=size_mb).seconds
        plan = RunPlan(1, size_mb=size_mb, chunk_length_s=2 * length_s, processing_threads={"reader0": 1})
        Daq(site.config.daq.folder, lab.runs(site.name), "demo-daq").take(plan)
        largest = max(file.stat().st_size for file in site.config.daq.folder.rglob("*") if file.is_file()) / 1e6
        site.snakemake()
        for attempt in (file.attempt for file in all_of(site.state, "000001")):
            found.setdefault(attempt.step, {})[f"file of {largest:.0f} MB"] = attempt.own_peak_rss_mb or 0.0
        site.remove()
    columns = list(found["transfer"])
    rows = [[step, *(f"{peaks[c]:.0f}" for c in columns)] for step, peaks in found.items()]
    worst = max(max(peaks.values()) for peaks in found.values())
    return Result(
        "memory",
        "Peak resident memory of each step's own process (VmHWM), MB; the live-data check is part of transfer; the "
        "product is a copy of the live data, so that all steps meet the large file",
        [judge("largest process of a step, beyond strax", worst, GOAL_MB, " MB")],
        [Table("Peak resident memory, MB", ["step", *columns], rows)],
    )
