"""Many small runs: the whole chain by one invocation, against a loop with one fresh Python process for each run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.measure import Sample, Series, run
from bench.result import Result, Table, compare, judge, times
from bench.site import Lab, Site, job_seconds, make_site
from straxflow.attempts import all_of
from straxflow.config.load import ROOT
from straxflow.lab.daq import Daq, RunPlan
from straxflow.receipts import Processed

RUNS, QUICK_RUNS = 100, 10
IN_LOOP, QUICK_IN_LOOP = 12, 3
SIZE_MB = 5.0
GOAL = 0.2
IDLE = 0.15
"""With less than this part of all cores idle, more work at once would give nothing."""
HERE = Path(__file__).parent
Documents = Mapping[str, dict[str, Any]]


def bench(lab: Lab, quick: bool) -> Result:
    """Measure both, see that they made the same, and say where the time of a small run goes."""
    count, in_loop = (QUICK_RUNS, QUICK_IN_LOOP) if quick else (RUNS, IN_LOOP)
    daq = Daq(lab.folder / "daq_many", None, "demo-daq")
    documents = {}
    for number in range(1, count + 1):
        documents[f"{number:06d}"], summary = daq.take(RunPlan(number, size_mb=SIZE_MB, seed=number))
    some = dict(list(documents.items())[:in_loop])
    # what is compiled and cached at the first use is not to be measured
    _loop(lab, daq.folder, dict(list(some.items())[:1]), "warm")
    _remove(lab, "small_loop_warm")
    # one after the other on settled disks: the first of the two leaves nothing behind that the second could use
    os.sync()
    fresh = _loop(lab, daq.folder, some, "measured")
    site = make_site(lab, "small_runs", daq.folder, {"claim": {"max_runs": count}})
    lab.runs(site.name).insert_many([dict(one) for one in documents.values()])
    os.sync()
    idle_s, others_cpu = idle_cores(), cpu_of_processes(str(lab.folder))
    whole = site.snakemake()
    idle_s, others_cpu = idle_cores() - idle_s, cpu_of_processes(str(lab.folder)) - others_cpu
    compared = check_same(site.config.store.folder, lab.folder / "small_loop_measured" / "store", list(some))
    idle = site.snakemake()
    cpu = cpu_parts(site, list(documents), whole, idle)
    jobs = _jobs(site, count)
    site.remove()
    _remove(lab, "small_loop_measured")
    loop = Series(
        f"loop of {count} fresh processes: that of {in_loop} runs, times {count / in_loop:.3g}",
        [scaled(fresh, count / in_loop)],
    )
    ours = Series(f"straxflow, {count} runs", [whole])
    cores, unused = os.cpu_count() or 1, idle_s / whole.wall
    return Result(
        "small runs",
        f"{count} runs of {summary.plain_bytes / 1e6:.1f} MB of records to stored and registered raw_records, by one "
        f"`snakemake --profile local`, against bench/bare_loop.sh: rsync --fsync, a fresh Python with strax, xxhsum, "
        f"cp and sync for each run. The loop is measured with {in_loop} runs and scaled to {count}",
        [
            compare(f"{count} small runs, by a loop of as many fresh processes (scaled)", ours, loop, GOAL),
            judge("CPU by the loop's (scaled)", whole.cpu / loop.samples[0].cpu, None, ""),
            judge("wall clock a small run (start and end apart)", (whole.wall - idle.wall) / count, None, " s"),
            judge("CPU a small run (start and end apart)", (whole.cpu - idle.cpu) / count, None, " s"),
        ],
        [times("All runs", [ours, loop]), _cpu_table(cpu), jobs],
        [
            f"The strax data files of {compared} in both ways are bit-identical (metadata tell times).",
            f"A run takes {(whole.cpu + others_cpu) / count:.2f} CPU s, of which {others_cpu / count:.2f} are the run "
            f"database's and the DAQ's side of ssh; {unused:.1f} of the machine's {cores} cores were idle, so "
            f"it is limited by {'waiting (disk, scheduling)' if unused > IDLE * cores else 'the CPU'}.",
            f"Of straxflow's own, start and end apart: {shares(cpu)}.",
            f"The loop takes {fresh.wall / in_loop:.2f} s and {fresh.cpu / in_loop:.2f} CPU s a run, nearly all of it "
            "the start of Python with strax; it claims, checks, reads back and registers nothing.",
        ],
    )


def scaled(sample: Sample, factor: float) -> Sample:
    """What so many times the work would take, if each part takes as long as those that were measured."""
    return Sample(sample.wall * factor, sample.cpu * factor, sample.own_cpu * factor)


def check_same(one: Path, other: Path, runs: list[str]) -> str:
    """Compare the data files of some runs in two stores; what was compared, in words.

    Raises:
        RuntimeError: if they differ, or if there are none.
    """
    total = 0
    for name in runs:
        here, there = _digests(one, name), _digests(other, name)
        if not here or here != there:
            different = sorted(file for file in here | there if here.get(file) != there.get(file))
            raise RuntimeError(f"run {name}: {one} and {other} do not hold the same: {different or 'no files'}")
        total += len(here)
    return f"{len(runs)} runs ({total} files)"


def _digests(store: Path, run: str) -> dict[str, str]:
    files = (path for folder in store.glob(f"{run}-*") for path in folder.rglob("*"))
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file() and path.suffix != ".json"
    }


def cpu_parts(site: Site, runs: list[str], whole: Sample, idle: Sample) -> dict[str, float]:
    """CPU seconds a run, by who used them, without what an invocation with nothing to do takes; they add up."""
    steps = sum(f.attempt.cpu_seconds or 0.0 for run in runs for f in all_of(site.state, run))
    strax = sum(site.state.get(run, "raw_records", Processed).cpu_seconds for run in runs)
    found = {
        "Snakemake's main process": whole.own_cpu - idle.own_cpu,
        "steps": steps,
        "strax": strax,
    }
    found["shells and clients of jobs, fork servers"] = whole.cpu - idle.cpu - sum(found.values())
    return {name: seconds / len(runs) for name, seconds in found.items()}


def _cpu_table(cpu: Mapping[str, float]) -> Table:
    return Table(
        "CPU of straxflow a run, start and end apart", ["part", "s"], [[k, f"{v:.3f}"] for k, v in cpu.items()]
    )


def shares(values: Mapping[str, float]) -> str:
    """The parts of a sum, largest first, in words."""
    total = sum(values.values())
    largest = sorted(values.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {value / total:.0%}" for name, value in largest)


def idle_cores() -> float:
    """Seconds that the cores of this machine had nothing to do, or nothing but to wait for a disk, since its start."""
    idle, waiting = map(int, Path("/proc/stat").read_text().split()[4:6])
    return (idle + waiting) / os.sysconf("SC_CLK_TCK")


def cpu_of_processes(word: str) -> float:
    """CPU seconds of all processes with this word in their command lines, and of the children they waited for."""
    ticks = 0
    for folder in Path("/proc").glob("[0-9]*"):
        # processes may end meanwhile
        with contextlib.suppress(OSError):
            if word.encode() in (folder / "cmdline").read_bytes():
                ticks += sum(map(int, (folder / "stat").read_text().rpartition(")")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _jobs(site: Site, count: int) -> Table:
    inside: dict[str, list[float]] = {}
    for run_ in site.state.all_runs():
        for attempt in (file.attempt for file in all_of(site.state, run_)):
            one = inside.setdefault(attempt.step, [0.0, 0.0])
            one[0] += (attempt.seconds or 0.0) / count
            one[1] += (attempt.cpu_seconds or 0.0) / count
    rows = []
    for rule, seconds in job_seconds(site).items():
        wall, cpu = (f"{value:.3f}" for value in inside[rule]) if rule in inside else ("", "")
        rows.append([rule, f"{seconds / (1 if rule == 'claim' else count):.2f}", wall, cpu])
    return Table("A job of a small run", ["job", "s, by Snakemake", "s, in the step", "CPU s, in the step"], rows)


def _loop(lab: Lab, daq: Path, documents: Documents, name: str) -> Sample:
    work = lab.folder / f"small_loop_{name}"
    work.mkdir()
    for one, document in documents.items():
        facts = json.dumps({"run": one, **document}, default=lambda t: t.isoformat())
        (work / f"{one}.json").write_text(facts)
    ssh = " ".join(["ssh", *lab.sshd.ssh_options])
    argv = [str(HERE / "bare_loop.sh"), f"{lab.sshd.host}:{daq}", str(work), sys.executable, ssh, "1"]
    return run([*argv, *documents], cwd=ROOT, log=work / "log")


def _remove(lab: Lab, name: str) -> None:
    shutil.rmtree(lab.folder / name)
