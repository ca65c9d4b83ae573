"""Real rsync over a real throwaway sshd, and what happens when things break on the way."""

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from straxflow import fsio
from straxflow.digests import Manifest, hash_tree, verify_tree
from straxflow.errors import Damaged, Retryable, StepFailed, StraxflowError
from straxflow.lab.sshd import Sshd
from straxflow.transport import Adopted, LocalStore, Place, Store, Stored, open_store, pull, rsync
from straxflow.transport import pull as _pull_function

pulling = sys.modules[_pull_function.__module__]
ODD = [
    b"a b",
    b"new\nline",
    b"q\"uo'te",
    b"back\\slash",
    "ünï".encode(),
    b"-dash",
    b"\xff\xfe",
    b"\\#012",
    b"#h",
    b";s",
]


def cut(sshd: Sshd) -> None:
    """Kill the server's open sessions, not the server."""
    for session in children(sshd._process.pid):
        for pid in [session, *children(session)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def children(pid: int | None) -> list[int]:
    return [int(p) for p in subprocess.run(["pgrep", "-P", str(pid)], capture_output=True).stdout.split()]


def fill(folder: Path, sizes: dict[str, int] | None = None) -> Path:
    for name, size in (sizes or {"000000/r_0": 300_000, "000000_post/r_0": 7, "THE_END/r": 0, "m.json": 99}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.urandom(size))
    return folder


def bring(sshd: Sshd, source: Path, target: Path, **kw) -> list:
    return pull(Place(str(source), sshd.host), target, ssh_options=sshd.ssh_options, pause_s=0.1, **kw)


def slowly() -> dict:
    return {"rsync_args": ["-a", "--bwlimit=4m"]}


# --- pull


def test_pull_logs_in_once_and_leaves_no_connection(sshd: Sshd, tmp_path: Path) -> None:
    source = fill(tmp_path / "src")
    fill(tmp_path / "dst")  # the same names with other content: digests are asked for too
    before = sshd.log.read_text().count("Accepted publickey")
    bring(sshd, source, tmp_path / "dst")
    assert sshd.log.read_text().count("Accepted publickey") == before + 1
    deadline = time.monotonic() + 5
    while children(sshd._process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not children(sshd._process.pid)


@pytest.mark.fault(
    group="security",
    broken="names at the DAQ with line breaks, quotes, dashes, patterns, bytes that are no UTF-8",
    left="each file under its own name, verified",
    next="nothing to do",
)
def test_pull_gives_the_manifest_of_any_names(sshd: Sshd, tmp_path: Path) -> None:
    source = fill(tmp_path / "src it's")
    for name in ODD:
        Path(os.fsdecode(os.fsencode(source) + b"/" + name)).write_bytes(name)
    done: list[int] = []
    files = bring(sshd, source, tmp_path / "dst", progress=done.append)
    assert Manifest("xxh128", tuple(files)) == hash_tree(source) == hash_tree(tmp_path / "dst")
    assert done == sorted(done) and done[-1] == hash_tree(source).bytes
    # again: all are skipped, and hashed on both sides
    assert bring(sshd, source, tmp_path / "dst") == files
    assert pull(Place(str(source)), tmp_path / "local") == files
    # linked from an earlier attempt
    assert bring(sshd, source, tmp_path / "third", link_dests=[tmp_path / "dst"]) == files
    assert (tmp_path / "third/m.json").stat().st_ino == (tmp_path / "dst/m.json").stat().st_ino


def test_what_a_broken_transfer_left_at_the_source_stays_there(sshd: Sshd, tmp_path: Path) -> None:
    source = fill(tmp_path / "src")
    files = bring(sshd, source, tmp_path / "dst")
    fill(source, {"000000/.rsync-partial/r_0": 1000})
    # most is here: the sender's digests are the listing
    assert bring(sshd, source, tmp_path / "again", link_dests=[tmp_path / "dst"], retries=0) == files


def test_files_that_go_and_come_at_the_source_between_two_attempts(sshd: Sshd, tmp_path: Path) -> None:
    source = fill(tmp_path / "src")
    bring(sshd, source, tmp_path / "dst")
    (source / "m.json").unlink()
    fill(source, {"000001/r_0": 5000})
    log: list[str] = []
    found = bring(sshd, source, tmp_path / "again", link_dests=[tmp_path / "dst"], retries=0, log=log.append)
    assert Manifest("xxh128", tuple(found)) == hash_tree(source) == hash_tree(tmp_path / "again")
    assert (tmp_path / "again/000000/r_0").stat().st_nlink == 2
    assert sum(line.startswith("+ rsync") for line in log) == 2


def test_links_that_a_dead_attempt_left_do_not_stay(sshd: Sshd, tmp_path: Path) -> None:
    source, target = fill(tmp_path / "src"), tmp_path / "dst"
    (target / "000000").mkdir(parents=True)
    (target / "link").symlink_to(source / "m.json")
    (target / "000000/linked").symlink_to(source)
    found = bring(sshd, source, target)
    assert Manifest("xxh128", tuple(found)) == hash_tree(source) == hash_tree(target)


def aside_of(target: Path) -> Path:
    (aside,) = target.parent.glob(f".differs-{target.name}~*")
    return aside


def test_what_the_source_lost_since_it_arrived_is_kept(sshd: Sshd, tmp_path: Path) -> None:
    source, target = fill(tmp_path / "src", {f"{k:06d}/r_0": 1000 + k for k in range(3)}), tmp_path / "dst"
    whole = hash_tree(source)
    bring(sshd, source, target)
    shutil.rmtree(source / "000001")
    with pytest.raises(Damaged, match=r"1 files that had arrived.*1001 bytes, are gone there: '000001/r_0'.*retry"):
        bring(sshd, source, target)
    aside = aside_of(target)
    assert hash_tree(aside) == Manifest("xxh128", (whole.by_path["000001/r_0"],))
    # by a person's word
    assert Manifest("xxh128", tuple(bring(sshd, source, target))) == hash_tree(source) == hash_tree(target)
    shutil.rmtree(aside)
    before = hash_tree(target)
    for folder in source.iterdir():
        shutil.rmtree(folder)
    with pytest.raises(Damaged, match="2 files that had arrived"):
        bring(sshd, source, target)
    assert hash_tree(aside_of(target)) == before
    assert bring(sshd, source, target) == []


def test_what_was_not_whole_goes_and_is_not_missed(sshd: Sshd, tmp_path: Path) -> None:
    source, target = fill(tmp_path / "src", {"000000/r_0": 99, "000001_pre_temp/r_0": 99}), tmp_path / "dst"
    bring(sshd, source, target)
    half = {"000000/.r_0.Xa3b9Z": 50, "000000/.rsync-partial/r_0": 60, "000001_pre/.r_0.4711": 9}
    fill(target, half)
    (source / "000001_pre_temp").rename(source / "000001_pre")
    found = bring(sshd, source, target)
    assert Manifest("xxh128", tuple(found)) == hash_tree(source) == hash_tree(target)
    # in that moment redax has no file of a run that begins; and an unmounted disk has none
    fill(target, {"000002_temp/r_0": 5})
    for folder in source.iterdir():
        shutil.rmtree(folder)
    for folder in ("000000", "000001_pre"):
        shutil.rmtree(target / folder)
    assert bring(sshd, source, target) == []
    assert (target / "000002_temp/r_0").is_file()
    assert not list(tmp_path.glob(".differs-*"))


def test_a_part_of_a_file_that_the_source_lost_is_kept(sshd: Sshd, tmp_path: Path) -> None:
    source, target = fill(tmp_path / "src"), fill(tmp_path / "dst", {"000001/.r_0.Xa3b9Z": 50})
    with pytest.raises(Damaged, match=r"'000001/\.r_0\.Xa3b9Z'"):
        bring(sshd, source, target)
    assert hash_tree(aside_of(target)).bytes == 50


def test_an_earlier_file_that_differs_is_kept_beside(sshd: Sshd, tmp_path: Path) -> None:
    source, target = fill(tmp_path / "src"), tmp_path / "dst"
    bring(sshd, source, target)
    good, before = (source / "000000/r_0").read_bytes(), (source / "000000/r_0").stat()
    (source / "000000/r_0").write_bytes(os.urandom(300_000))
    os.utime(source / "000000/r_0", ns=(before.st_atime_ns, before.st_mtime_ns))
    log: list[str] = []
    bring(sshd, source, target, log=log.append)
    assert hash_tree(target) == hash_tree(source)
    assert (aside_of(target) / "000000/r_0").read_bytes() == good
    assert any(str(aside_of(target)) in line for line in log)


def test_a_failed_flush_is_not_forgotten_with_the_connection(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = fill(tmp_path / "src", {f"f{i}": 1_000_000 for i in range(12)}), tmp_path / "dst"
    real, failed = os.fsync, list[Path]()

    def fsync(fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        if path == target / "f0" and not failed:
            failed.append(path)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(Retryable, match="connection lost"):
        bring(sshd, source, target, retries=0, progress=lambda n: cut(sshd) if n > 4_000_000 else None, **slowly())
    assert failed
    left = {path.name for path in target.glob("f*")}
    assert len(left) > 2 and "f0" not in left
    bring(sshd, source, target)
    assert hash_tree(target) == hash_tree(source)


def test_what_an_attempt_left_is_not_trusted_to_memory(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = fill(tmp_path / "src", {"large": 1 << 20, "small": 1000, "zbad": 1000}), tmp_path / "dst"
    bring(sshd, source, target)
    cold, written = list[str](), list[str]()
    real = pulling.digest_file

    def digest(folder: Path, path: str, **how: bool):
        cold.extend([path] * how.get("cold", False))
        return real(folder, path, **how)

    def write_back(fd: int) -> None:
        written.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        if written[-1] == "zbad":
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(pulling, "digest_file", digest)
    monkeypatch.setattr("straxflow.digests.write_back", write_back)
    with pytest.raises(OSError, match=r"Input/output error.*zbad"):
        bring(sshd, source, target)
    assert cold == ["large"]
    assert set(written) == {"small", "zbad"}
    assert not (target / "zbad").exists()


def test_a_damaged_earlier_file_is_not_trusted(sshd: Sshd, tmp_path: Path) -> None:
    source, old = fill(tmp_path / "src"), tmp_path / "old"
    bring(sshd, source, old)
    path = old / "000000/r_0"
    before = path.stat()
    path.write_bytes(os.urandom(300_000))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    bring(sshd, source, tmp_path / "new", link_dests=[old])
    assert hash_tree(tmp_path / "new") == hash_tree(source)


@pytest.mark.parametrize("times", [1, 2])
def test_a_bit_flipped_on_disk(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    source, real, left = fill(tmp_path / "src"), pulling.digest_file, [times]

    def flip(folder: Path, path: str, *args, **kw):
        if path == "000000/r_0" and left[0]:
            left[0] -= 1
            data = bytearray((folder / path).read_bytes())
            data[5] ^= 4
            before = (folder / path).stat()
            (folder / path).write_bytes(data)
            os.utime(folder / path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return real(folder, path, *args, **kw)

    monkeypatch.setattr(pulling, "digest_file", flip)
    if times == 1:
        bring(sshd, source, tmp_path / "dst")
        assert hash_tree(tmp_path / "dst") == hash_tree(source)
    else:
        with pytest.raises(StepFailed, match=r"twice: '000000/r_0': on disk 300000 bytes"):
            bring(sshd, source, tmp_path / "dst")


def test_a_cut_connection_is_resumed(sshd: Sshd, tmp_path: Path) -> None:
    source = fill(tmp_path / "src", {f"f{i}": 1_000_000 for i in range(12)})
    cuts: list[int] = []
    log: list[str] = []

    def after_four(done: int) -> None:
        if done > 4_000_000 and not cuts:
            cuts.append(done)
            cut(sshd)

    bring(sshd, source, tmp_path / "dst", progress=after_four, log=log.append, **slowly())
    assert cuts and any("again in" in line for line in log)
    assert verify_tree(tmp_path / "dst", hash_tree(source)) == []


def test_a_source_written_during_the_transfer(sshd: Sshd, tmp_path: Path) -> None:
    source = fill(tmp_path / "src", {f"f{i}": 1_000_000 for i in range(6)})
    os.utime(source / "f0", (1e9, 1e9))  # rsync sees no change of content within one second
    once: list[int] = []

    def write(done: int) -> None:
        if not once:
            once.append(done)
            (source / "f0").write_bytes(os.urandom(1_000_000))
            (source / "g").write_bytes(b"late")
            (source / "f5").unlink()

    bring(sshd, source, tmp_path / "dst", progress=write, **slowly())
    assert hash_tree(tmp_path / "dst") == hash_tree(source)
    with pytest.raises(Retryable, match="still being written"):
        bring(
            sshd,
            source,
            tmp_path / "dst2",
            progress=lambda n: (source / f"x{time.time_ns()}").touch() or None,
            retries=1,
        )


def test_clear_errors(sshd: Sshd, tmp_path: Path) -> None:
    source = fill(tmp_path / "src")
    with pytest.raises(StepFailed, match="no such source"):
        bring(sshd, tmp_path / "gone", tmp_path / "d1")
    options = sshd.ssh_options
    wrong = ["-p", "1", *options]
    with pytest.raises(Retryable, match=r"unreachable.*given up after 2 tries"):
        pull(Place(str(source), sshd.host), tmp_path / "d2", ssh_options=wrong, retries=1, pause_s=0.1)
    unknown = ["-o", "UserKnownHostsFile=/dev/null", *options]
    with pytest.raises(Retryable, match="host key"):
        pull(Place(str(source), sshd.host), tmp_path / "d3", ssh_options=unknown)
    key = options.index("-i") + 1
    nokey = [*options[:key], "/none", *options[key + 1 :]]
    with pytest.raises(Retryable, match="refused our key"):
        pull(Place(str(source), sshd.host), tmp_path / "d4", ssh_options=nokey)
    (source / "link").symlink_to("/etc/passwd")
    with pytest.raises(Damaged, match="'link' is a link"):
        bring(sshd, source, tmp_path / "d5")


def test_a_deadline_ends_it(sshd: Sshd, tmp_path: Path) -> None:
    source = fill(tmp_path / "src", {"f": 20_000_000})
    start = time.monotonic()
    with pytest.raises(Retryable, match="took more than"):
        bring(sshd, source, tmp_path / "dst", timeout_s=1, rsync_args=["-a", "--bwlimit=500k"])
    assert time.monotonic() - start < 8


CHILD = """
import sys
from pathlib import Path
from straxflow.transport import Place, pull
source, target, *options = sys.argv[1:]
pull(Place(source, "127.0.0.1"), Path(target), ssh_options=options, rsync_args=["-a", "--bwlimit=4m"])
"""


@pytest.mark.fault(
    group="kill",
    broken="kill -9 of the process that drives rsync",
    left="the files that had arrived; no rsync, no ssh",
    next="links what had arrived, after reading it on both sides",
)
def test_kill_minus_nine_leaves_no_rsync_and_its_files_serve_the_next(sshd: Sshd, tmp_path: Path) -> None:
    source = fill(tmp_path / "src", {f"f{i}": 1_000_000 for i in range(12)})
    first = tmp_path / fsio.incoming_name("x")
    process = subprocess.Popen([sys.executable, "-c", CHILD, source, first, *sshd.ssh_options])
    wait_for(lambda: first.is_dir() and len(list(first.glob("f*"))) >= 4)
    process.kill()
    process.wait()
    wait_for(lambda: not running_with(str(first)))
    whole = {p.name for p in first.glob("f*")}
    log: list[str] = []
    bring(sshd, source, tmp_path / "second", link_dests=[first], log=log.append)
    assert verify_tree(tmp_path / "second", hash_tree(source)) == []
    assert sum((tmp_path / "second" / n).stat().st_nlink == 2 for n in whole) == len(whole) >= 4


def wait_for(ready: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def running_with(text: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if text.encode() in line and b"rsync" in line:
            found.append(line.decode(errors="replace"))
    return found


# --- store


@pytest.fixture(params=["local", "ssh"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    folder = tmp_path / "store here"
    folder.mkdir()
    if request.param == "local":
        return open_store(folder)
    daemon: Sshd = request.getfixturevalue("sshd")
    return open_store(folder, daemon.host, daemon.ssh_options)


def folder_of(store: Store) -> Path:
    return Path(store.folder)  # type: ignore[attr-defined]


@pytest.mark.parametrize("algorithm", ["xxh128", "sha256"])
def test_put_verify_fetch(store: Store, tmp_path: Path, algorithm: str) -> None:
    source = fill(tmp_path / "src")
    for name in ODD:
        Path(os.fsdecode(os.fsencode(source) + b"/" + name)).write_bytes(name)
    manifest = hash_tree(source, algorithm)
    assert not store.exists("000932-x-y")
    assert store.put(source, "000932-x-y", manifest) == Stored("000932-x-y")
    assert store.exists("000932-x-y") and store.verify("000932-x-y", manifest) == []
    assert hash_tree(folder_of(store) / "000932-x-y", algorithm) == manifest
    assert store.put(source, "000932-x-y", manifest) == Adopted("000932-x-y")
    assert [p.name for p in folder_of(store).iterdir()] == ["000932-x-y"]
    assert store.read_file("000932-x-y", "m.json") == (source / "m.json").read_bytes()
    store.fetch("000932-x-y", tmp_path / "back", manifest)
    assert hash_tree(tmp_path / "back", algorithm) == manifest
    assert abs(store.free_bytes() - os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize) < 5e9
    (folder_of(store) / "000932-x-y/000000/r_0").write_bytes(bytes(300_000))
    (folder_of(store) / "000932-x-y/m.json").unlink()
    kinds = [(d.path, d.kind) for d in store.verify("000932-x-y", manifest)]
    assert kinds == [("000000/r_0", "digest"), ("m.json", "missing")]
    with pytest.raises(Damaged):
        store.fetch("000932-x-y", tmp_path / "back2", manifest)
    with pytest.raises(Damaged, match="not there"):
        store.verify("000933-x-y", manifest)


def test_a_different_product_stays(store: Store, tmp_path: Path) -> None:
    one, two = fill(tmp_path / "one"), fill(tmp_path / "two")
    store.put(one, "p", hash_tree(one))
    with pytest.raises(Damaged, match=r"p: a different product is there already.*two was not"):
        store.put(two, "p", hash_tree(two))
    assert store.put(two, "p", hash_tree(two), tolerate=lambda d: True) == Adopted("p")
    assert hash_tree(folder_of(store) / "p") == hash_tree(one)
    (folder_of(store) / "empty").mkdir()
    with pytest.raises(Damaged, match="different product"):
        store.put(two, "empty", hash_tree(two))
    assert sorted(p.name for p in folder_of(store).iterdir()) == ["empty", "p"]


def test_a_source_that_is_not_its_manifest(store: Store, tmp_path: Path) -> None:
    source = fill(tmp_path / "src")
    manifest = hash_tree(source)
    (source / "m.json").write_bytes(os.urandom(99))
    with pytest.raises(Damaged, match=r"m\.json"):
        store.put(source, "p", manifest)
    assert list(folder_of(store).iterdir()) == []


def test_two_puts_at_once(store: Store, tmp_path: Path) -> None:
    source = fill(tmp_path / "src", {f"f{i}": 100_000 for i in range(30)})
    manifest = hash_tree(source)
    barrier = threading.Barrier(3)

    def put(_: int) -> object:
        barrier.wait()
        return store.put(source, "p", manifest)

    with ThreadPoolExecutor(3) as pool:
        kinds = sorted(type(r).__name__ for r in pool.map(put, range(3)))
    assert kinds == ["Adopted", "Adopted", "Stored"]
    assert [p.name for p in folder_of(store).iterdir()] == ["p"] and store.verify("p", manifest) == []


PUT = """
import os, sys, threading, time
from pathlib import Path
from straxflow.digests import hash_tree
from straxflow.transport import open_store
store, source, host, *options = sys.argv[1:]
if host == "-":
    from straxflow import publish
    real = publish._bring
    def slow(*args):
        time.sleep(0.1)
        real(*args)
    publish._bring = slow
kw = {"host": host, "ssh_options": options, "rsync_args": ["-a", "--bwlimit=4m"]} if host != "-" else {}
open_store(store, **kw).put(Path(source), "p", hash_tree(Path(source)))
"""


@pytest.mark.fault(
    group="kill",
    broken="kill -9 of a move into the store ({store})",
    left="a hidden folder of a dead owner in the store",
    next="uses the files of it that read back well, stores the product once, removes the rest",
)
def test_an_interrupted_put_is_picked_up(store: Store, sshd: Sshd, tmp_path: Path) -> None:
    source = fill(tmp_path / "src", {f"f{i}": 1_000_000 for i in range(12)})
    there = ["-"] if isinstance(store, LocalStore) else [sshd.host, *sshd.ssh_options]
    process = subprocess.Popen([sys.executable, "-c", PUT, folder_of(store), source, *there])
    wait_for(lambda: len(list(folder_of(store).glob(".incoming-p~*/f*"))) >= 5)
    process.kill()
    process.wait()
    wait_for(lambda: not running_with(str(folder_of(store))))
    [left] = folder_of(store).iterdir()
    inodes = {p.stat().st_ino for p in left.glob("f*")}
    manifest = hash_tree(source)
    assert store.put(source, "p", manifest) == Stored("p")
    assert len(inodes & {p.stat().st_ino for p in (folder_of(store) / "p").iterdir()}) >= 4
    assert [p.name for p in folder_of(store).iterdir()] == ["p"] and store.verify("p", manifest) == []


def test_what_is_being_given_its_name_is_not_removed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = fill(tmp_path / "src")
    real = type(store)._rename
    late: list[threading.Timer] = []

    def stopped(self: Store, incoming: str, name: str) -> bool:
        # the signal comes while another host is at it
        late.append(threading.Timer(0.3, real, (self, incoming, name)))
        late[0].start()
        raise KeyboardInterrupt

    monkeypatch.setattr(type(store), "_rename", stopped)
    with pytest.raises(KeyboardInterrupt):
        store.put(source, "p", hash_tree(source))
    monkeypatch.undo()
    late[0].join()
    assert store.verify("p", hash_tree(source)) == []
    assert store.put(source, "p", hash_tree(source)) == Adopted("p")


def test_many_files_go_to_the_store_in_portions(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rsync, "_NAMES", 3)
    source = fill(tmp_path / "src")
    assert store.put(source, "p", hash_tree(source)) == Stored("p")
    assert store.verify("p", hash_tree(source)) == []


def test_a_full_disk_and_an_unmounted_one(store: Store, tmp_path: Path) -> None:
    folder = folder_of(store)
    with pytest.raises(StepFailed, match="mounted"):
        store.check_marker("store", "here")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("may not mount here")
    try:
        fsio.write_marker(folder, "store", "here")
        store.check_marker("store", "here")
        with pytest.raises(StepFailed, match="is the store of site here"):
            store.check_marker("store", "there")
        source = fill(tmp_path / "src", {"a": 1_000_000, "b": 6_000_000})
        with pytest.raises(Retryable, match="disk full"):
            store.put(source, "p", hash_tree(source))
        assert [p.name for p in folder.iterdir()] == [fsio.MARKER]
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
    with pytest.raises(StepFailed, match=r"no identity marker.*mounted"):
        store.check_marker("store", "here")
    folder.rmdir()
    with pytest.raises(StraxflowError, match="mounted"):
        store.exists("p")
    with pytest.raises(StepFailed, match="mounted"):
        store.check_marker("store", "here")


def test_reap(store: Store, tmp_path: Path) -> None:
    code = "from straxflow.fsio import incoming_name; print(incoming_name('p'))"
    dead = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
    fill(folder_of(store) / dead)
    (folder_of(store) / fsio.incoming_name("q")).mkdir()
    assert store.reap() == [dead]
    assert len(list(folder_of(store).iterdir())) == 1
