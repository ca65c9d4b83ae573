"""The verified transfer against what a user would write: rsync with flushing, with hashes, and scp with checksums.

All go over ssh on loopback.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.measure import Sample, Series, in_turn, measure, run
from bench.result import Judged, Result, Table, compare, times
from bench.site import Lab
from straxflow.fsio import move_content
from straxflow.transport import Place, pull

GOAL = 1.05
VERIFIED, FSYNC, PLAIN, AES, SCP = "verified", "rsync --fsync", "rsync", "rsync --fsync, AES-GCM", "scp, sha512sum"
HASHED = "rsync --fsync, xxhsum of what was there"
LINKED = "verified, by links"
RSYNC = 'rsync -a --fsync -e "$ssh" "$host:$source/" "$target/"'
SCRIPTS = {
    FSYNC: RSYNC,
    PLAIN: RSYNC.replace(" --fsync", ""),
    AES: RSYNC.replace("$ssh", "$ssh -c aes128-gcm@openssh.com"),
}
LIST = '(cd "$target" && find . -type f -print0) >"$target.list"'
BOTH_SIDES = """
$ssh "$host" "cd '$source' && xargs -0 {program}" <"$target.list" >"$target.there"
(cd "$target" && xargs -0 {program} <"$target.list") >"$target.here"
cmp "$target.there" "$target.here"
"""
SCRIPTS[HASHED] = "\n".join([LIST, RSYNC, BOTH_SIDES.format(program="xxhsum -q -H2")])
SCRIPTS[SCP] = "\n".join(['scp -rpq $options "$host:$source" "$target"', LIST, BOTH_SIDES.format(program="sha512sum")])
NOTES = [
    "CPU is that of this side, with the background process that holds straxflow's shared ssh connection.",
    "The plain tools use ssh as it is, hence its first cipher (ChaCha20). straxflow asks for AES-GCM where the "
    "processor knows AES; what the cipher alone gives is the difference between the two cases of rsync --fsync.",
    "rsync --fsync reads nothing back and compares nothing; straxflow compares the digest that the sender made while "
    "reading with one that is made here as the files arrive. scp flushes nothing.",
    "Files that were there before have no digest from the sending: both sides have to read them. The baseline does so "
    "by xxhsum, one side after the other, and the goal is set against that; against rsync --fsync alone, which reads "
    "none of them, the ratio is only told. straxflow takes them over from the folder of a dead attempt; where nobody "
    "can be sure that it is dead, as on another machine, it links them. rsync goes on in the folder itself.",
]


@dataclass(frozen=True)
class Files:
    """A set of files, of MB each, and how often each case is measured with it; `there`: also when some are there.

    `once`: cases that take long, or that only explain.
    """

    count: int
    size_mb: float
    repetitions: int
    there: bool = False
    extra: tuple[str, ...] = ()
    once: tuple[str, ...] = (SCP,)

    @property
    def name(self) -> str:
        """As the report says it."""
        size = f"{self.size_mb:g} MB" if self.size_mb >= 1 else f"{self.size_mb * 1e3:g} kB"
        return f"{self.count:,} x {size}"


SETS = (
    Files(20, 50.0, 3, there=True, extra=(AES,), once=(PLAIN, SCP)),
    Files(2_000, 1.0, 2),
    Files(20_000, 0.01, 2, there=True),
)
QUICK_SETS = (Files(4, 12.5, 2), Files(50, 1.0, 2), Files(500, 0.01, 2, there=True))


def bench(lab: Lab, quick: bool) -> Result:
    """Measure all for few large files and for many small ones; new, all there before, and half of them."""
    judged: list[Judged] = []
    tables: list[Table] = []
    source = lab.folder / "source"
    for files in QUICK_SETS if quick else SETS:
        fill(source, files.count, files.size_mb)
        _new(lab, source, files, judged, tables)
        if files.there:
            _there(lab, source, files, judged, tables)
        shutil.rmtree(source)
    return Result(
        "transfer",
        "straxflow.transport.pull against plain tools, over ssh on loopback; random bytes, the sender's page cache "
        "warm; the live-data check is not part of it",
        judged,
        tables,
        NOTES,
    )


def fill(folder: Path, count: int, size_mb: float) -> None:
    """Files as a DAQ leaves them: compressed, hence random bytes; ten to a folder."""
    for i in range(count):
        file = folder / f"{i // 10:06d}" / f"reader0_{i % 10}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.urandom(int(size_mb * 1e6)))


def shell(script: str, source: str, target: Path, host: str, ssh_options: Sequence[str]) -> Sample:
    """Time a script as a user writes it; $host, $source, $target, $ssh, and $options of ssh and scp are given."""
    options = list(ssh_options)
    # scp has another letter for the port
    at = options.index("-p")
    options[at : at + 2] = ["-o", f"Port={options[at + 1]}"]
    words = " ".join(options)
    given = {"host": host, "source": source, "target": str(target), "ssh": f"ssh {words}", "options": words}
    try:
        return run(["bash", "-euo", "pipefail", "-c", script], env={**os.environ, **given}, log=Path(f"{target}.log"))
    finally:
        for file in target.parent.glob(f"{target.name}.*"):
            file.unlink()


def _new(lab: Lab, source: Path, files: Files, judged: list[Judged], tables: list[Table]) -> None:
    often = [FSYNC, *files.extra]
    cases = {VERIFIED: _verified(lab, source), **{name: _plain(lab, source, name) for name in [*often, *files.once]}}
    found = in_turn(cases, 1)
    more = in_turn({name: case for name, case in cases.items() if name not in files.once}, files.repetitions - 1, 1)
    for name, series in more.items():
        found[name].samples += series.samples
    for name in [*often, *files.once]:
        # what was measured once, by what was measured beside it
        ours = Series(VERIFIED, found[VERIFIED].samples[: len(found[name].samples)])
        goal = GOAL if name == FSYNC else None
        judged.append(compare(f"transfer of {files.name}, by {name}", ours, found[name], goal))
    tables.append(times(files.name, list(found.values())))


def _there(lab: Lab, source: Path, files: Files, judged: list[Judged], tables: list[Table]) -> None:
    """All files, then every second one, are here before."""
    earlier = lab.folder / "earlier"
    for state, step in (("all there", 1), ("half there", 2)):
        _copy(source, earlier, step, shutil.copy2)
        names = [FSYNC, HASHED]
        cases = {VERIFIED: _again(lab, source, earlier), LINKED: _verified(lab, source, earlier)}
        found = in_turn(cases | {name: _plain(lab, source, name, earlier) for name in names}, files.repetitions)
        shutil.rmtree(earlier)
        for name in names:
            what, goal = f"transfer of {files.name}, {state}, by {name}", GOAL if name == HASHED else None
            judged.append(compare(what, found[VERIFIED], found[name], goal))
        tables.append(times(f"{files.name}, {state}", list(found.values())))


def _copy(source: Path, target: Path, step: int, function: Callable[[str, str], object]) -> None:
    """Every `step`-th file of each folder."""

    def left_out(_: str, names: list[str]) -> list[str]:
        return [name for i, name in enumerate(sorted(names)) if i % step and name.startswith("reader")]

    shutil.copytree(source, target, copy_function=function, ignore=left_out)


def _verified(lab: Lab, source: Path, earlier: Path | None = None) -> Callable[[int], Sample]:
    """All of it, or with links to what is `earlier` there."""
    target = lab.folder / "target"
    place = Place(str(source), lab.sshd.host)

    def once(_: int) -> Sample:
        try:
            return measure(
                lambda: pull(place, target, ssh_options=lab.sshd.ssh_options, link_dests=[earlier] if earlier else [])
            )
        finally:
            shutil.rmtree(target)

    return once


def _again(lab: Lab, source: Path, earlier: Path) -> Callable[[int], Sample]:
    """A second attempt, after one that is dead."""
    dead, target = lab.folder / "dead", lab.folder / "target"
    place = Place(str(source), lab.sshd.host)

    def transfer() -> None:
        target.mkdir()
        move_content(dead, target)
        pull(place, target, ssh_options=lab.sshd.ssh_options)

    def once(_: int) -> Sample:
        _copy(earlier, dead, 1, os.link)
        os.sync()
        try:
            return measure(transfer)
        finally:
            shutil.rmtree(target)

    return once


def _plain(lab: Lab, source: Path, name: str, earlier: Path | None = None) -> Callable[[int], Sample]:
    target = lab.folder / "target"

    def once(_: int) -> Sample:
        if earlier:
            _copy(earlier, target, 1, os.link)
            os.sync()
        try:
            return shell(SCRIPTS[name], str(source), target, lab.sshd.host, lab.sshd.ssh_options)
        finally:
            shutil.rmtree(target)

    return once
