"""Clocks that are wrong or jump, and dates that are odd.

A library that is loaded before all others moves the clock of a process and of all below it; the run database, on a host
of its own, keeps the right time, and so does the server of the files.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.faults.checks import nothing_is_lost, told_clearly
from tests.site import Site

HOURS = [pytest.param(3600, id="an hour ahead"), pytest.param(-3600, id="an hour behind")]


def clock(shim: Path, off: float, since: Path | None = None) -> dict[str, str]:
    """The environment in which the clock is off by so many seconds, as soon as there is a file."""
    return {"LD_PRELOAD": str(shim), "CLOCK": f"{off:.0f}:{since}" if since else f"{off:.0f}"}


def waiting(site: Site) -> dict[str, Any]:
    wait = f"touch {site.folder}/begun; until test -e {site.folder}/go; do sleep 0.1; done"
    line = f"sh -c '{wait}; rsync -am --min-size=1 {{source}}/{{run}}/ {{output}}/data'"
    return {"raw": {"from": "live", "kind": "command", "command": line}}


@pytest.mark.slow
@pytest.mark.fault(
    group="time",
    broken="the clock of a second invocation's host is {id}, while a first one is at work",
    left="the first one's claim: leases are counted by the database's clock",
    next="leaves that run alone, and brings another one in as ever",
)
@pytest.mark.parametrize("off", HOURS)
def test_a_wrong_clock_takes_nothing_over(site: Site, shim: Path, off: int) -> None:
    site.configure(products=waiting(site), claim={"max_runs": 1})
    site.take(2, "led", 0.5)
    with site.background() as running:
        running.until((site.folder / "begun").exists)
        held = site.doc(2)["straxflow"]["online"]["claim"]["batch"]
        site.take(1, "led", 0.5)
        (site.folder / "go").touch()
        other = site.snakemake(env=clock(shim, off))
        assert other.code == 0, other.output
        assert not [job for job in other.jobs if "000002" in job]
        result = running.wait()
    assert result.code == 0, result.output
    nothing_is_lost(site, done=[1, 2])
    assert {a.batch for a in site.attempts("000002")} == {held}


@pytest.mark.slow
@pytest.mark.fault(
    group="time",
    broken="the clock is stepped {id} while a product is made",
    left="an attempt that ends {id} of its time",
    next="needs none: the work goes on to its end; what follows has nothing to do",
)
@pytest.mark.parametrize("off", HOURS)
def test_a_step_of_the_clock(site: Site, shim: Path, off: int) -> None:
    stepped = site.folder / "stepped"
    copy = "rsync -am --min-size=1 {source}/{run}/ {output}/data"
    line = f"sh -c 'touch {stepped}; sleep 0.5; {copy}'"
    site.configure(products={"raw": {"from": "live", "kind": "command", "command": line}})
    for number in (1, 2):
        site.take(number, "led", 0.5)
    result = site.snakemake("--cores", "1", env=clock(shim, off, stepped))
    assert result.code == 0, result.output
    nothing_is_lost(site, done=[1, 2])
    again = site.snakemake()
    assert (again.code, again.jobs) == (0, []), again.output


@pytest.mark.slow
@pytest.mark.fault(
    group="time",
    broken="the clock was stepped by an hour, ahead or behind, between the transfer and the processing: times of files "
    "are out of order",
    left="receipts of the transfer that are newer, or much older, than all that follows",
    next="finishes; the one after that has nothing to do, also for a target that is named",
)
def test_times_of_files_out_of_order(site: Site) -> None:
    for number in (1, 2):
        site.take(number, "led", 0.5)
    assert site.snakemake("runs/000001/live/registered.json", "runs/000002/live/registered.json").code == 0
    shift_times(site, -3600, "000001")
    shift_times(site, 3600, "000002")
    result = site.snakemake()
    assert result.code == 0, result.output
    nothing_is_lost(site, done=[1, 2])
    for run in ("000001", "000002"):
        steps = [a.step for a in site.attempts(run) if a.outcome == "ok"]
        assert len(steps) == len(set(steps))
    again = site.snakemake()
    assert (again.code, again.jobs) == (0, [])


@pytest.mark.slow
@pytest.mark.fault(
    group="time",
    broken="the clock of the state folder's server is stepped back by an hour while a product is made",
    left="receipts of the transfer that are of the future: snakemake takes what follows for outdated, and says so",
    next="puts the times right, adopts what was made, and finishes",
)
def test_a_step_back_of_the_times_of_files(site: Site) -> None:
    site.configure(products=waiting(site))
    site.take(1, "led", 0.5)
    with site.background() as running:
        running.until((site.folder / "begun").exists)
        shift_times(site, 3600)
        (site.folder / "go").touch()
        told_clearly(running.wait(), "clock skew", "000001")
    assert "failures" not in site.doc(1)["straxflow"]["online"]
    result = site.snakemake()
    assert result.code == 0, result.output
    nothing_is_lost(site, done=[1])
    assert [a.outcome for a in site.attempts("000001") if a.step == "transfer"] == ["ok"]


def shift_times(site: Site, seconds: float, run: str = "000001") -> None:
    """Move the times of all receipts of a run."""
    for path in site.state().run(run).rglob("*.json"):
        moment = path.stat().st_mtime + seconds
        os.utime(path, (moment, moment))


@pytest.mark.slow
@pytest.mark.fault(
    group="time",
    broken="summer time ends while a run is worked on, on a host whose local time is that of Amsterdam",
    left="times in UTC, in order",
    next="needs none",
)
def test_the_end_of_summer_time(site: Site, shim: Path) -> None:
    site.take(1, "led", 0.5)
    # 03:00 becomes 02:00 three seconds after the start
    moment = datetime(2026, 10, 25, 0, 59, 57, tzinfo=UTC)
    off = (moment - datetime.now(UTC)).total_seconds()
    result = site.snakemake(env={**clock(shim, off), "TZ": "Europe/Amsterdam"})
    assert result.code == 0, result.output
    nothing_is_lost(site, done=[1])
    tried = site.attempts("000001")
    assert all(a.seconds is not None and 0 <= a.seconds < 300 for a in tried)
    assert all(moment - timedelta(minutes=1) < a.started < moment + timedelta(minutes=10) for a in tried)
    assert [a.started for a in tried] == sorted(a.started for a in tried)


@pytest.mark.slow
@pytest.mark.fault(
    group="time",
    broken="dates in run documents: text, a number, the end before the start, an end in the future",
    left="these runs as they were, but for those whose dates cannot be read, which are named with the reason",
    next="brings the others in; and these as soon as their dates are right or have come",
)
def test_odd_dates(site: Site) -> None:
    right = {}
    for number in range(1, 6):
        site.take(number, "led", 0.5)
        right[number] = {key: site.doc(number)[key] for key in ("start", "end")}
    odd: dict[int, dict[str, Any]] = {
        1: {"end": "2026-11-20 12:00:00"},
        2: {"start": 1_790_000_000},
        3: {"end": right[3]["start"] - timedelta(hours=1)},
        4: {"end": datetime.now(UTC) + timedelta(hours=1)},
    }
    for number, dates in odd.items():
        site.runs.update_one({"number": number}, {"$set": dates})
    before = {number: site.doc(number) for number in odd}
    result = site.snakemake()
    print(result.output)
    assert "Traceback" not in result.output
    assert site.status(5) == "done"
    assert {number: site.doc(number) for number in odd} == before
    named = site.snakemake("runs/000004/live/registered.json")
    told_clearly(named, "000004")
    for number, dates in right.items():
        site.runs.update_one({"number": number}, {"$set": dates})
    again = site.snakemake()
    assert again.code == 0, again.output
    nothing_is_lost(site, done=range(1, 6))
