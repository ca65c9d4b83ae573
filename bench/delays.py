"""The verified transfer over a long line: two network namespaces, joined with a delay (bench/delaytun.c)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench.measure import Sample, Series, in_turn, measure, ratio_of
from bench.result import Judged, Result, Table, compare, times
from bench.site import Lab
from bench.transfer import FSYNC, GOAL, SCRIPTS, VERIFIED, Files, fill, shell
from straxflow.lab.sshd import Sshd
from straxflow.transport import Place, pull, ssh

DELAYS_MS = (5.0, 50.0)
FIRST, HALVES = "verified, first of an invocation", "verified, two at once"
# twenty files have two folders: the halves
SETS = (Files(20, 5.0, 3, extra=(HALVES,)), Files(500, 0.01, 3))
QUICK_SETS = (Files(20, 0.5, 1), Files(50, 0.01, 1))
SETTING = (
    "straxflow.transport.pull against `rsync -a --fsync`, both over ssh between two network namespaces with this delay "
    "each way, as much data on the line as TCP and ssh let, and no loss"
)
KEPT = (
    f"'{VERIFIED}' goes over the connection that an invocation keeps from one transfer to the next; '{FIRST}' logs in, "
    "as each rsync does."
)
WINDOW = (
    "OpenSSH lets 2 MB of a stream be on their way: with 50 ms each way, 20 MB/s a stream at most, whatever the line. "
    "Only such a line has room for a second stream."
)
HERE, THERE = "10.203.0.1", "10.203.0.2"
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Far:
    """The other end of the line."""

    host: str
    ssh_options: list[str]


class NotPossible(Exception):
    """This machine can't join namespaces; why."""


def bench(lab: Lab, quick: bool) -> Result:
    """Measure both with each delay, and whether two pulls at once are faster than one; nothing where it can't be."""
    judged: list[Judged] = []
    tables: list[Table] = []
    notes: list[str] = []
    folder = lab.folder / "delays"
    folder.mkdir()
    try:
        relay = build(folder)
        for files in QUICK_SETS if quick else SETS:
            fill(folder / "source", files.count, files.size_mb)
            for delay_ms in DELAYS_MS:
                with _line(folder, relay, delay_ms) as far, _kept(folder / "connections") as kept:
                    found = in_turn(_cases(folder, far, kept, HALVES in files.extra), files.repetitions)
                name = f"{files.name}, {delay_ms:g} ms each way"
                what = f"transfer of {name}"
                judged.append(compare(f"{what}, by rsync --fsync", found[FIRST], found[FSYNC], GOAL))
                judged.append(compare(f"{what}, further ones of an invocation", found[VERIFIED], found[FSYNC], None))
                tables.append(times(name, list(found.values())))
                if HALVES in found:
                    notes.append(f"{name}: {gain(found[HALVES], found[FIRST])}")
            shutil.rmtree(folder / "source")
    except NotPossible as error:
        return Result("delays", SETTING, [], [], [f"not measured: {error}"])
    finally:
        shutil.rmtree(folder)
    return Result("delays", SETTING, judged, tables, [KEPT, *notes, WINDOW] if notes else [])


def gain(several: Series, one: Series) -> str:
    """Whether parallel streams help, in words."""
    return (
        f"two pulls of a half each, at the same time, take {ratio_of(several, one):.2f} of the time of one pull "
        f"({several.show()} s, and {one.show()} s)."
    )


def build(folder: Path) -> Path:
    """Compile the program that delays.

    Raises:
        NotPossible: if that, or what it needs, is not possible here.
    """
    if os.geteuid() != 0 or not Path("/dev/net/tun").exists():
        raise NotPossible("network namespaces and /dev/net/tun need root, and a kernel that has them")
    program = folder / "delaytun"
    source = Path(__file__).with_name("delaytun.c")
    _call("cc", "-O2", "-pthread", "-o", str(program), str(source))
    return program


@contextlib.contextmanager
def _line(folder: Path, relay: Path, delay_ms: float) -> Iterator[Far]:
    """Two namespaces with an sshd in the other one; within, this thread and what it starts are in the first."""
    ends = {f"straxflow-{os.getpid()}-{end}": address for end, address in (("here", HERE), ("there", THERE))}
    here, there = ends
    with contextlib.ExitStack() as stack:
        for name in ends:
            _call("ip", "netns", "add", name)
            stack.callback(_call, "ip", "netns", "del", name)
        stack.enter_context(_running([str(relay), here, there, f"{delay_ms:g}"]))
        for name, address in ends.items():
            _call("ip", "-n", name, "address", "add", f"{address}/30", "dev", "delay")
            _call("ip", "-n", name, "link", "set", "delay", "mtu", "9000", "up")
            _call("ip", "-n", name, "link", "set", "lo", "up")
        with _inside(there):
            sshd = stack.enter_context(Sshd(folder / "sshd", extra=f"ListenAddress {THERE}\n"))
        user = sshd.host.partition("@")[0]
        with _inside(here):
            # its key is known by the name that it has for itself
            yield Far(f"{user}@{THERE}", [*sshd.ssh_options, "-o", f"HostKeyAlias=[127.0.0.1]:{sshd.port}"])


@contextlib.contextmanager
def _running(argv: list[str]) -> Iterator[None]:
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        try:
            if process.stdout.readline() != b"ready\n":
                raise NotPossible(process.stderr.read().decode(errors="replace").strip())
            yield
        finally:
            process.kill()


@contextlib.contextmanager
def _inside(name: str) -> Iterator[None]:
    """Have this thread, and what it starts from now on, in a network namespace."""
    with Path("/proc/thread-self/ns/net").open("rb") as before, Path("/var/run/netns", name).open("rb") as after:
        _enter(after.fileno())
        try:
            yield
        finally:
            _enter(before.fileno())


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET):
        raise NotPossible(f"setns: {os.strerror(ctypes.get_errno())}")


def _call(*argv: str) -> None:
    try:
        subprocess.run(argv, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise NotPossible(f"{argv[0]} is not installed") from None
    except subprocess.CalledProcessError as error:
        raise NotPossible(f"{' '.join(argv)}: {error.stderr.strip()}") from None


@contextlib.contextmanager
def _kept(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    try:
        yield folder
    finally:
        ssh.close_connections(folder)
        shutil.rmtree(folder)


def _cases(folder: Path, far: Far, kept: Path, halves: bool) -> dict[str, Callable[[int], Sample]]:
    source, target = folder / "source", folder / "target"

    def get(name: str = ".") -> None:
        pull(Place(str(source / name), far.host), target / name, ssh_options=far.ssh_options)

    def both() -> None:
        target.mkdir()
        names = sorted(half.name for half in source.iterdir())
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(get, names))

    def timed(work: Callable[[], object]) -> Callable[[int], Sample]:
        return lambda _: removed(lambda: measure(work))

    def removed(work: Callable[[], Sample]) -> Sample:
        try:
            return work()
        finally:
            shutil.rmtree(target)

    def connected(_: int) -> Sample:
        os.environ[ssh.CONNECTIONS] = str(kept)
        try:
            # an earlier job of the same invocation did
            ssh.run(far.host, far.ssh_options, ["true"])
            return removed(lambda: measure(get))
        finally:
            del os.environ[ssh.CONNECTIONS]

    cases = {
        VERIFIED: connected,
        FIRST: timed(get),
        FSYNC: lambda _: removed(lambda: shell(SCRIPTS[FSYNC], str(source), target, far.host, far.ssh_options)),
    }
    return {**cases, HALVES: timed(both)} if halves else cases
