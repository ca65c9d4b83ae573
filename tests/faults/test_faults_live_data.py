"""Live data damaged at the DAQ in every way that redax' folders allow, brought in by the literal command line: one
invocation over one run of each kind. Nothing of a damaged run gets further than the hidden folder that it arrived in.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from tests.faults.checks import nothing_is_lost
from tests.site import QUICK_PRODUCTS, Result, Site

WHOLE = (1, 99)
"""Runs that nothing happens to, before and behind the others."""

SETTINGS = {"products": {"raw": QUICK_PRODUCTS["raw"]}, "transfer": {"wait_s": 0, "length_tolerance_s": 0.02}}

Damage = Callable[[Path], object]


def files(run: Path, folder: str) -> list[Path]:
    return sorted((run / folder).iterdir())


def flip(file: Path, where: int = 5) -> None:
    """Flip one bit, of the stream's header if nothing else is said; size and times stay, as on a bad disk."""
    info = file.stat()
    content = bytearray(file.read_bytes())
    content[where] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))


def swap(one: Path, other: Path) -> None:
    aside = one.parent.parent / "aside"
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def cut(file: Path, size: int) -> None:
    os.truncate(file, size)


def cut_twins(run: Path) -> None:
    """Both copies of an overlap end early, in the same place."""
    for folder in ("000001_post", "000002_pre"):
        cut(files(run, folder)[0], 100)


def link(path: Path, to: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.symlink_to(to)


def without_the_last_chunk(run: Path) -> None:
    for folder in ("000003", "000003_post", "000004_pre"):
        shutil.rmtree(run / folder, ignore_errors=True)


DAMAGES: dict[str, tuple[Damage, str]] = {
    "a chunk is missing": (lambda run: shutil.rmtree(run / "000001"), "000001: missing"),
    "an overlap is missing": (lambda run: shutil.rmtree(run / "000002_pre"), "000002_pre: missing"),
    "the last chunk is missing": (without_the_last_chunk, " chunks; "),
    "a file is missing": (lambda run: files(run, "000001")[0].unlink(), "missing"),
    "a file of an overlap is empty": (lambda run: cut(files(run, "000001_post")[0], 0), "differs from 000001_post"),
    "a file is cut short": (lambda run: cut(files(run, "000001")[0], 100), "whole compressed stream"),
    "both copies of an overlap are cut short": (cut_twins, "whole compressed stream"),
    "a file has something behind its end": (
        lambda run: files(run, "000001")[0].open("ab").write(b"more"), "something follows",
    ),
    "a bit of a stream is flipped": (lambda run: flip(files(run, "000001")[0]), "000001/reader0_"),
    "a bit of one copy of an overlap is flipped": (
        lambda run: flip(files(run, "000002_pre")[0], -9), "000002_pre/reader0_",
    ),
    "two chunks are swapped": (lambda run: swap(run / "000001", run / "000002"), "times in"),
    "a chunk and its overlap are swapped": (lambda run: swap(run / "000001", run / "000001_post"), "times in"),
    "a thread too many": (
        lambda run: shutil.copy(files(run, "000001")[0], run / "000001" / "reader0_17"), "reader0_17: surplus file",
    ),
    "a chunk twice": (lambda run: shutil.copytree(run / "000001", run / "000009"), "000009: begins after"),
    "the run twice": (lambda run: shutil.copytree(run, run / run.name), "begins after the run's end"),
    "a late file, still on its way": (lambda run: (run / "000003_temp" / "reader0_1").touch(), "still being written"),
    "its end is missing": (lambda run: shutil.rmtree(run / "THE_END"), "still being written"),
    "a file of another program": (lambda run: (run / "notes.txt").write_text("hello"), "does not belong here"),
    "a folder of another program": (lambda run: (run / "lost+found").mkdir(), "does not belong here"),
    "a file of another reader": (
        lambda run: [shutil.copy(files(run, "000001")[0], run / f / "other_1") for f in ("000001", "THE_END")],
        "unknown reader",
    ),
    "a link to a file elsewhere": (lambda run: link(files(run, "000001")[0], Path("/etc/hostname")), "link"),
    "a link to a folder elsewhere": (lambda run: link(run / "000001", Path("/etc")), "link"),
    "a pipe": (lambda run: os.mkfifo(run / "000001" / "reader0_3"), "non-regular file"),
    "a name with a line break": (lambda run: (run / "000001" / "reader0_1\n000002").touch(), "surplus file"),
    "a name that looks like an option": (lambda run: (run / "--delete").touch(), "does not belong here"),
    "a name with quotes and shell words": (lambda run: (run / "'$(touch X)'; `touch X`").mkdir(), "does not belong"),
    "a name that is no UTF-8": (
        lambda run: Path(os.fsdecode(os.fsencode(run) + b"/000001/reader0_\xff")).touch(), "surplus file",
    ),
}  # fmt: skip
WAITS = ("a late file, still on its way", "its end is missing")
"""What may yet come right by itself."""
NUMBERS = dict(zip(DAMAGES, range(2, 99), strict=False))


@dataclass
class Worked:
    """A site, and what an invocation over all of its runs said."""

    site: Site
    first: Result
    again: Result


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory, rundb_server: RunDbServer, sshd: Sshd) -> Iterator[Worked]:
    site = Site(tmp_path_factory.mktemp("bad"), rundb_server, sshd, settings=SETTINGS)
    for number in (*WHOLE, *NUMBERS.values()):
        site.take(number, "led", 0.5)
    for name, (damage, _) in DAMAGES.items():
        damage(site.folder / "daq" / f"{NUMBERS[name]:06d}")
    yield Worked(site, site.snakemake(), site.snakemake())
    site.close()


@pytest.mark.slow
@pytest.mark.fault(
    group="damage",
    broken="live data at the DAQ: {name}",
    left="all other runs done; of this one only what arrived, hidden",
    next="nothing, until a person has looked; what may yet be written is waited for",
)
@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_live_data_go_no_further(worked: Worked, name: str) -> None:
    site, number = worked.site, NUMBERS[name]
    run = f"{number:06d}"
    assert site.status(number) == ("pending" if name in WAITS else "failed")
    reason = site.reason(number)
    assert DAMAGES[name][1] in reason
    assert f"run {run}" in reason or f"{site.folder}/daq/{run}" in reason
    assert {a.outcome for a in site.attempts(run)} == {"retry" if name in WAITS else "damaged"}
    assert set(site.receipts(run)) == {"run.json"}
    assert not (site.folder / "live" / run).exists()
    assert not [p for place in ("staging", "store") for p in (site.folder / place).glob(f"{run}*")]
    assert [e["host"] for e in site.doc(number)["data"]] == ["test-daq"]


@pytest.mark.slow
def test_the_other_runs_go_on(worked: Worked) -> None:
    assert worked.first.code != 0
    assert "Traceback" not in worked.first.output, worked.first.output
    for number in NUMBERS.values():
        assert f"straxflow: run {number:06d}: " in worked.first.output
    assert [worked.site.status(number) for number in WHOLE] == ["done"] * len(WHOLE)
    assert not list(worked.site.root.rglob("X"))


@pytest.mark.slow
@pytest.mark.fault(
    group="damage",
    broken="live data that were damaged have been mended at the DAQ, and the run was set to pending",
    left="what arrived before, hidden",
    next="keeps what is the same, reads everything again, brings the run all the way",
)
def test_damaged_data_are_not_tried_again_by_themselves_but_by_a_persons_word(worked: Worked) -> None:
    site = worked.site
    waiting = {f"{NUMBERS[name]:06d}" for name in WAITS}
    assert {job.split()[1] for job in worked.again.jobs} == waiting
    number = NUMBERS["a bit of a stream is flipped"]
    flip(files(site.folder / "daq" / f"{number:06d}", "000001")[0])
    site.runs.update_one({"number": number}, {"$set": {"processing_status": "pending"}})
    mended = site.snakemake()
    assert site.status(number) == "done", mended.output
    # what arrived of the others stays for a next attempt, which reads it again
    for name in site.scratch():
        assert int(name.partition("~")[0].rpartition("-")[2]) in NUMBERS.values()
        shutil.rmtree(site.folder / name)
    nothing_is_lost(site, (*WHOLE, number))
