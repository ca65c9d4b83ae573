"""The whole chain of a run, from the DAQ's disk to stored and registered, against a bare shell loop."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping
from operator import add
from pathlib import Path
from typing import Any

from bench.bare import loop
from bench.measure import Sample, Series, in_turn, ratio_of, run
from bench.result import Judged, Result, Table, compare, judge, parts, times
from bench.site import Lab, Site, job_seconds, make_site
from straxflow.attempts import all_of
from straxflow.lab.daq import Daq, RunPlan
from straxflow.receipts import Transferred

RUNS = ("000001", "000002", "000003", "000004")
# of records in memory: 500 and 2,000 MB of live data on the DAQ's disk
SIZE_MB, BIG_MB, QUICK_MB = 690.0, 2760.0, 50.0
REPETITIONS, BIG_REPETITIONS, QUICK_REPETITIONS = 3, 2, 1
GOAL = 1.10
FLOW = ("straxflow", "straxflow, strax with one worker")
LOOP = ("bare loop, strax with two workers", "bare loop")
"""The cases of both ways, with two workers of strax and with one."""
EMPTY = "an empty Snakefile"


def bench(lab: Lab, quick: bool) -> Result:
    """Measure both in turn, for one run and for some, and say where the time of the single run goes."""
    size_mb = QUICK_MB if quick else SIZE_MB
    daq = Daq(lab.folder / "daq", None, "demo-daq")
    documents = {}
    for number, name in enumerate(RUNS[:2] if quick else RUNS, 1):
        documents[name], summary = daq.take(RunPlan(number, size_mb=size_mb, seed=number))
    cases = _Cases(lab, daq.folder, documents)
    first, every = list(documents)[:1], list(documents)
    # what is compiled and cached at the first use is not to be measured
    cases.whole(first, "warm")
    cases.bare(first, "warm")
    cases.parts.clear()
    cases.bare_parts.clear()
    repetitions = QUICK_REPETITIONS if quick else REPETITIONS
    one = cases.one(first, "one", repetitions)
    where = [
        parts("Where straxflow's time goes, one run, two workers", cases.parts),
        parts("Where the bare loop's goes, one run, one worker", cases.bare_parts),
    ]
    many = in_turn(
        {"straxflow": lambda i: cases.whole(every, f"all{i}"), "bare loop": lambda i: cases.bare(every, f"all{i}")},
        max(repetitions // 2, 1),
    )
    n = len(every)
    judged, tables = ([], []) if quick else _big(cases, daq)
    return Result(
        "chain",
        f"Runs of {summary.disk_bytes / 1e6:.0f} MB of live data ({summary.plain_bytes / 1e6:.0f} MB of records) to "
        "stored and registered raw_records, by `snakemake --profile local`, against bench/bare_loop.sh (rsync --fsync, "
        "strax, xxhsum, cp, sync), which checks nothing, reads nothing back and registers nothing",
        [
            *_compared("whole chain, one run", one),
            compare(
                f"whole chain, {n} runs at once, by bare loop, two workers by one",
                many["straxflow"],
                many["bare loop"],
                None,
            ),
            *judged,
        ],
        [times("One run", list(one.values())), times(f"{n} runs", list(many.values())), *tables, *where],
        [
            "Where nothing is said, straxflow has `workers: 2` for raw_records, as a site on two cores would, and the "
            "loop calls strax with one worker, as strax' own command does by default. A second worker makes it faster "
            "and takes more CPU, whoever asks for it, so both are compared with one worker on both sides, and with "
            "two.",
            "The loop has none of: claim, live-data check, digests compared with the sender's, records out compared "
            "with records in, flushed publication, reading back past the page cache (in move_out, and again in "
            "release before anything is dropped), registration, receipts.",
            "CPU is that of this side of the line, with the background process that holds the shared ssh connection.",
            "Start-ups are a fixed cost, that of Snakemake and of the process that jobs are forks of: the ratios fall "
            "with the size of the run and with the number of runs an invocation takes. What no workflow of Snakemake "
            f"can do without is measured beside it: {EMPTY}, with one rule that does nothing, takes "
            f"{one[EMPTY].show('cpu')} CPU s.",
        ],
    )


def _big(cases: _Cases, daq: Daq) -> tuple[list[Judged], list[Table]]:
    """One run of four times the size."""
    cases.documents["000009"], summary = daq.take(RunPlan(9, size_mb=BIG_MB, seed=9))
    run = ["000009"]
    both = cases.one(run, "big", BIG_REPETITIONS)
    what = f"one run of {summary.disk_bytes / 1e9:.1f} GB"
    return _compared(f"whole chain, {what}", both), [times(f"O{what[1:]}", list(both.values()))]


def _compared(what: str, cases: Mapping[str, Series]) -> list[Judged]:
    """Both with as many workers on both sides; and as two users may call them, one with two workers, one with one."""
    fast, lean, loop_fast, loop = (cases[name] for name in (*FLOW, *LOOP))
    cpu = f"{what}, CPU by bare loop"
    least = Series(f"bare loop and {EMPTY}", list(map(add, loop.samples, cases[EMPTY].samples)))
    return [
        compare(f"{what}, by bare loop, one worker each", lean, loop, GOAL),
        compare(f"{what}, by bare loop, two workers each", fast, loop_fast, GOAL),
        compare(f"{what}, by bare loop, two workers by one", fast, loop, None),
        judge(f"{cpu}, one worker each", ratio_of(lean, loop, "cpu"), GOAL, ""),
        judge(f"{cpu}, two workers each", ratio_of(fast, loop_fast, "cpu"), GOAL, ""),
        judge(
            f"{what}, CPU of the bare loop with {EMPTY}, by that of the loop alone",
            ratio_of(least, loop, "cpu"),
            None,
            "",
        ),
        judge(f"{what}, CPU by that of {least.name}, one worker each", ratio_of(lean, least, "cpu"), GOAL, ""),
    ]


class _Cases:
    """Both ways to do the same runs."""

    def __init__(self, lab: Lab, daq: Path, documents: dict[str, dict[str, Any]]) -> None:
        self.lab, self.daq, self.documents = lab, daq, documents
        self.parts: list[dict[str, float]] = []
        self.bare_parts: list[dict[str, float]] = []

    def one(self, run: list[str], name: str, repetitions: int) -> dict[str, Series]:
        """Both ways to do one run, with one worker of strax and with two."""
        cases = {}
        for workers, whole, bare in zip((2, 1), FLOW, LOOP, strict=True):
            cases[whole] = lambda i, n=workers: self.whole(run, f"{name}{n}_{i}", n)
            cases[bare] = lambda i, n=workers: self.bare(run, f"{name}{n}_{i}", n)
        cases[EMPTY] = lambda i: self.empty()
        return in_turn(cases, repetitions)

    def whole(self, runs: list[str], name: str, workers: int = 2) -> Sample:
        """The workflow, on a new site."""
        products = {"products": {"raw_records": {"from": "live", "workers": workers}}}
        site = make_site(self.lab, f"chain_{name}", self.daq, products)
        self.lab.runs(site.name).insert_many([dict(self.documents[r]) for r in runs])
        sample = site.snakemake()
        if runs == [RUNS[0]] and workers == 2:
            self.parts.append(where_it_goes(site, runs[0], sample))
        site.remove()
        return sample

    def empty(self) -> Sample:
        """What Snakemake takes to start and to end."""
        folder = self.lab.folder / "empty"
        folder.mkdir(exist_ok=True)
        (folder / "Snakefile").write_text("rule all:\n    input: []\n")
        return run(["snakemake", "--cores", "2"], cwd=folder)

    def bare(self, runs: list[str], name: str, workers: int = 1) -> Sample:
        """The shell loop, into a new folder."""
        work = self.lab.folder / f"bare_{name}"
        documents = {one: self.documents[one] for one in runs}
        strax = [sys.executable, str(workers), "straxflow.detectors.demo:context", "raw_records"]
        sample = loop(self.lab, self.daq, documents, work, strax)
        if runs == [RUNS[0]] and workers == 1:
            found = re.findall(r"^part (\w+) ([\d.]+)$", (work / "log").read_text(), re.MULTILINE)
            self.bare_parts.append({part: float(seconds) for part, seconds in found})
        shutil.rmtree(work)
        return sample


def where_it_goes(site: Site, run: str, sample: Sample) -> dict[str, float]:
    """Seconds of the parts of a chain, from benchmark files, receipts and attempts; they add up to its wall clock."""
    jobs = job_seconds(site)
    # it runs beside the process job
    jobs.pop("register_live", None)
    inside = {a.step: a.seconds or 0.0 for a in (file.attempt for file in all_of(site.state, run))}
    received = site.state.get(run, "live", Transferred)
    check = received.check.seconds if received.check else 0.0
    found = {
        "rsync, verified, flushed": received.seconds,
        "live-data check": check,
        "publication of the live copy": inside["transfer"] - received.seconds - check,
        "process: strax, judged and published": inside["process"],
        "checksum": inside["checksum"],
        "move_out: copy, flush, read back": inside["move_out"],
        "register": inside["register"],
        "release: read back, drop": inside["release"],
        "claim": jobs["claim"],
        "starts of the other jobs (Python, imports)": sum(jobs[step] - inside[step] for step in jobs if step in inside),
    }
    return {**found, "snakemake: start, DAG, scheduling, end": sample.wall - sum(found.values())}
