"""The verified transfer over a long line: two network namespaces, joined with a delay (bench/delaytun.c)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.measure import Sample, Series, in_turn, measure
from bench.result import Judged, Result, Table, compare, times
from bench.site import Lab
from bench.transfer import FSYNC, GOAL, HASHED, SCP, SCRIPTS, VERIFIED, Files, fill, shell
from straxflow.lab.sshd import Sshd
from straxflow.transport import Place, pull, ssh
from straxflow.transport.streams import WINDOW, WORTH, worth_having

DELAYS_MS = (5.0, 50.0)
FIRST, SEVERAL = "verified, first of an invocation", "verified, first, {} streams"
THERE = "verified, first, all there"
# scp takes minutes for many small ones
SETS = (Files(40, 5.0, 3), Files(500, 0.01, 3, once=()))
QUICK_SETS = (Files(20, 0.5, 1), Files(50, 0.01, 1))
SETTING = (
    "straxflow.transport.pull against `rsync -a --fsync`, both over ssh between two network namespaces with this delay "
    "each way, as much data on the line as TCP and ssh let, and no loss"
)
NOTES = [
    f"'{VERIFIED}' goes over the connection that an invocation keeps from one transfer to the next; all others log in.",
    f"OpenSSH lets {WINDOW / 1e6:.0f} MB of a stream be on their way: with 50 ms each way, 20 MB/s a stream at most, "
    "whatever the line. Only such a line has room for a second stream. `straxflow check` measures the round trip and "
    "says how many streams fill 1 Gbit/s with it; `transfer.streams` has them used, and no more of them than there are "
    f"{WORTH / 1e6:.0f} MB to send. Here they are as many as it says.",
]
HERE, FAR = "10.203.0.1", "10.203.0.2"
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
    """Measure all with each delay; nothing where it can't be."""
    judged: list[Judged] = []
    tables: list[Table] = []
    folder = lab.folder / "delays"
    folder.mkdir()
    try:
        relay = build(folder)
        for files in QUICK_SETS if quick else SETS:
            fill(folder / "source", files.count, files.size_mb)
            for delay_ms in DELAYS_MS:
                with _line(folder, relay, delay_ms) as far, _kept(folder / "connections") as kept:
                    found = _measured(_Cases(folder, far, kept), files, delay_ms)
                name = f"{files.name}, {delay_ms:g} ms each way"
                judged += _judged(f"transfer of {name}", found)
                tables.append(times(name, list(found.values())))
            shutil.rmtree(folder / "source")
    except NotPossible as error:
        # what was measured before stays
        return Result("delays", SETTING, judged, tables, [f"not all was measured: {error}"])
    finally:
        shutil.rmtree(folder)
    return Result("delays", SETTING, judged, tables, NOTES)


def _measured(cases: _Cases, files: Files, delay_ms: float) -> dict[str, Series]:
    streams = worth_having(2 * delay_ms / 1e3)
    often = {
        VERIFIED: cases.connected,
        FIRST: cases.first,
        FSYNC: cases.plain(FSYNC),
        THERE: cases.there,
        HASHED: cases.plain(HASHED, there=True),
    }
    if streams > 1 and files.count * files.size_mb * 1e6 > 2 * WORTH:
        often[SEVERAL.format(streams)] = lambda i: cases.first(i, streams)
    return in_turn(often, files.repetitions) | in_turn({name: cases.plain(name) for name in files.once}, 1)


def _judged(what: str, found: dict[str, Series]) -> list[Judged]:
    rows = [
        compare(f"{what}, by {FSYNC}", found[FIRST], found[FSYNC], GOAL),
        compare(f"{what}, further ones of an invocation", found[VERIFIED], found[FSYNC], None),
        compare(f"{what}, all there, by {HASHED}", found[THERE], found[HASHED], GOAL),
    ]
    for name in (one for one in found if "streams" in one):
        rows.append(compare(f"{what}, {name.rpartition(', ')[2]}, by {FSYNC}", found[name], found[FSYNC], GOAL))
    if SCP in found:
        # what was measured once, by what was measured beside it
        rows.append(compare(f"{what}, by {SCP}", Series(FIRST, found[FIRST].samples[:1]), found[SCP], None))
    return rows


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
    ends = {f"straxflow-{os.getpid()}-{end}": address for end, address in (("here", HERE), ("there", FAR))}
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
            sshd = stack.enter_context(Sshd(folder / "sshd", extra=f"ListenAddress {FAR}\n"))
        user = sshd.host.partition("@")[0]
        with _inside(here):
            # its key is known by the name that it has for itself
            yield Far(f"{user}@{FAR}", [*sshd.ssh_options, "-o", f"HostKeyAlias=[127.0.0.1]:{sshd.port}"])


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


class _Cases:
    """Ways to bring the same files over the same line."""

    def __init__(self, folder: Path, far: Far, kept: Path) -> None:
        self.source, self.target, self.far, self.kept = folder / "source", folder / "target", far, kept

    def first(self, _: int, streams: int = 1) -> Sample:
        """With a log-in of its own for each stream."""
        return self._removed(lambda: measure(lambda: self._pull(streams)))

    def connected(self, _: int) -> Sample:
        """Over a connection that an earlier job of the same invocation made."""
        os.environ[ssh.CONNECTIONS] = str(self.kept)
        try:
            ssh.run(self.far.host, self.far.ssh_options, ["true"])
            return self._removed(lambda: measure(self._pull))
        finally:
            del os.environ[ssh.CONNECTIONS]

    def there(self, _: int) -> Sample:
        """All stands here already."""
        self._copy()
        return self._removed(lambda: measure(self._pull))

    def plain(self, name: str, *, there: bool = False) -> Callable[[int], Sample]:
        """A script of a user."""

        def once(_: int) -> Sample:
            if there:
                self._copy()
            far = self.far
            return self._removed(lambda: shell(SCRIPTS[name], str(self.source), self.target, far.host, far.ssh_options))

        return once

    def _copy(self) -> None:
        shutil.copytree(self.source, self.target)
        os.sync()

    def _pull(self, streams: int = 1) -> None:
        far = self.far
        pull(Place(str(self.source), far.host), self.target, ssh_options=far.ssh_options, streams=streams)

    def _removed(self, work: Callable[[], Sample]) -> Sample:
        try:
            return work()
        finally:
            shutil.rmtree(self.target)
