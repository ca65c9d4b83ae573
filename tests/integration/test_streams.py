"""A transfer over several connections at once: the same verification, and one that breaks ends all."""

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from straxflow.digests import hash_tree, verify_tree
from straxflow.errors import Damaged, StepFailed
from straxflow.lab.sshd import Sshd
from straxflow.transport import ssh, streams
from straxflow.transport.lastlook import LastLook
from straxflow.transport.rsync import Item, Rsync
from straxflow.transport.ssh import LostConnection
from tests.integration.test_last_look import ONLY_RSYNC
from tests.integration.test_transport import ODD, bring, children, cut, fill, pulling, running_with, slowly, wait_for

MB = 1_000_000


@pytest.fixture(autouse=True)
def little_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "WORTH", 10_000)


def sizes(count: int = 12) -> dict[str, int]:
    return {f"{number:06d}/r_0": MB for number in range(count)}


def rsyncs(log: list[str]) -> list[str]:
    return [line for line in log if line.startswith("+ rsync") and "--files-from" in line]


def test_three_bring_what_one_would(sshd: Sshd, tmp_path: Path) -> None:
    source, target, log = fill(tmp_path / "src", sizes()), tmp_path / "dst", list[str]()
    for name in ODD:
        Path(os.fsdecode(bytes(source / "000001") + b"/" + name)).write_bytes(os.urandom(1000))
    arrived, done, threads = list[str](), list[int](), set[str]()

    def progress(received: int) -> None:
        done.append(received)
        threads.add(threading.current_thread().name)

    found = bring(
        sshd, source, target, streams=3, log=log.append, progress=progress, arrived=arrived.append, **slowly()
    )
    assert len(rsyncs(log)) == 3 and len({name for name in threads if name.startswith("stream")}) == 3
    assert found == sorted(hash_tree(source).files)
    assert verify_tree(target, hash_tree(source)) == []
    assert sorted(arrived) == sorted(file.path for file in found) and done == sorted(done)
    assert running_with(str(source)) == []


def test_a_second_attempt_sends_only_what_is_missing(sshd: Sshd, tmp_path: Path) -> None:
    source, target, log = fill(tmp_path / "src", sizes()), tmp_path / "dst", list[str]()
    bring(sshd, source, target)
    for number in range(4):
        (target / f"{number:06d}/r_0").unlink()
    told: list[int] = []
    bring(sshd, source, target, streams=2, log=log.append, progress=told.append)
    assert len(rsyncs(log)) == 2
    # the last word is of all that stands
    assert max(told[:-1]) == 4 * MB and told[-1] == 12 * MB
    assert verify_tree(target, hash_tree(source)) == []


def test_a_host_with_rsync_alone(tmp_path: Path) -> None:
    source, log = fill(tmp_path / "src", sizes()), list[str]()
    with Sshd(tmp_path / "sshd", extra=ONLY_RSYNC) as sshd:
        bring(sshd, source, tmp_path / "dst", streams=3, log=log.append)
    assert len(rsyncs(log)) == 3
    assert verify_tree(tmp_path / "dst", hash_tree(source)) == []


def test_cut_connections_are_resumed(sshd: Sshd, tmp_path: Path) -> None:
    source, log, cuts = fill(tmp_path / "src", sizes()), list[str](), list[int]()

    def after_four(done: int) -> None:
        if done > 4 * MB and not cuts:
            cuts.append(done)
            cut(sshd)

    bring(sshd, source, tmp_path / "dst", streams=3, progress=after_four, log=log.append, **slowly())
    assert cuts and any("again in" in line for line in log)
    assert verify_tree(tmp_path / "dst", hash_tree(source)) == []


def test_one_that_fails_ends_all(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = fill(tmp_path / "src", sizes())
    pull = Rsync.pull
    failed: list[str] = []

    def failing(self: Rsync, target, link_dests, timeout_s, only=None):
        if only and "000001/r_0" in only:
            failed.append("000001/r_0")
            wait_for(lambda: len(running_with(str(source))) >= 2)
            raise StepFailed("its disk")
        return pull(self, target, link_dests, timeout_s, only)

    monkeypatch.setattr(Rsync, "pull", failing)
    with pytest.raises(StepFailed, match="its disk"):
        # at this pace all would take 12 s
        bring(sshd, source, tmp_path / "dst", streams=3, rsync_args=["-a", "--bwlimit=333K"])
    assert failed and running_with(str(source)) == []
    assert not (tmp_path / "dst" / "000011/r_0").exists()


def test_an_interrupt_leaves_no_rsync(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = fill(tmp_path / "src", sizes())

    def interrupted(*_: object, **__: object) -> None:
        wait_for(lambda: len(running_with(str(source))) >= 3)
        raise KeyboardInterrupt

    monkeypatch.setattr(streams, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bring(sshd, source, tmp_path / "dst", streams=3, rsync_args=["-a", "--bwlimit=333K"])
    wait_for(lambda: running_with(str(source)) == [])
    assert not (tmp_path / "dst" / "000011/r_0").exists()


def test_kill_minus_nine_leaves_no_rsync_and_its_files_serve_the_next(sshd: Sshd, tmp_path: Path) -> None:
    source, target = fill(tmp_path / "src", sizes()), tmp_path / "dst"
    program = (
        "from pathlib import Path; from straxflow.transport import Place, pull, streams; streams.WORTH = 10_000; "
        f"pull(Place({str(source)!r}, {sshd.host!r}), Path({str(target)!r}), ssh_options={sshd.ssh_options!r}, "
        "streams=3, rsync_args=['-a', '--bwlimit=500K'])"
    )
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        wait_for(lambda: len(list(target.rglob("r_0"))) >= 3)
        assert len([line for line in running_with(str(source)) if "--files-from" in line]) >= 3
        process.kill()
    wait_for(lambda: running_with(str(source)) == [])
    told: list[int] = []
    bring(sshd, source, target, streams=3, progress=told.append)
    # its connections end by themselves, and other tests count sessions
    wait_for(lambda: not children(sshd.pid))
    assert max(told[:-1]) < 12 * MB
    assert verify_tree(target, hash_tree(source)) == []


@pytest.mark.parametrize("gone", ["file", "folder"])
def test_what_goes_between_the_list_and_the_rsyncs(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    """A file that redax renamed is no failure; a disk that went away is."""
    source = fill(tmp_path / "src", sizes())
    listing, first = LastLook.listing, [True]

    def then_goes(self: LastLook, target: Path) -> list[Item] | None:
        found = listing(self, target)
        while first:
            first.pop()
            if gone == "file":
                (source / "000003/r_0").rename(source / "000004/r_1")
            else:
                source.rename(tmp_path / "elsewhere")
        return found

    monkeypatch.setattr(LastLook, "listing", then_goes)
    if gone == "file":
        log: list[str] = []
        found = bring(sshd, source, tmp_path / "dst", streams=3, log=log.append)
        assert found == sorted(hash_tree(source).files)
        assert any("still being written" in line for line in log)
    else:
        with pytest.raises(StepFailed, match="no such source"):
            bring(sshd, source, tmp_path / "dst", streams=3, retries=1)


def test_little_comes_over_one_and_no_names_are_given(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "WORTH", 100 * MB)
    source, log = fill(tmp_path / "src", sizes()), list[str]()
    (source / "empty").mkdir()
    bring(sshd, source, tmp_path / "dst", streams=3, log=log.append)
    assert rsyncs(log) == [] and (tmp_path / "dst" / "empty").is_dir()


def test_a_bad_digest_is_brought_once_more(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, log, broken = fill(tmp_path / "src", sizes()), list[str](), [True]

    def break_one(path: str) -> None:
        if path == "000005/r_0" and broken:
            broken.pop()
            file = tmp_path / "dst" / path
            before = file.stat()
            with file.open("r+b") as opened:
                opened.write(b"\0\0\0\0")
            # a disk that breaks a file tells no new time; by one, it would count as changed at the source
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    # told of when it stands, before it is read
    hashed = pulling._Pull._hash

    def hash_later(self, path: str):
        break_one(path)
        return hashed(self, path)

    monkeypatch.setattr(pulling._Pull, "_hash", hash_later)
    bring(sshd, source, tmp_path / "dst", streams=3, log=log.append)
    assert not broken and any("digests differ" in line for line in log)
    assert verify_tree(tmp_path / "dst", hash_tree(source)) == []


def test_folders_that_may_not_be_written_to_do_not_hold_up_the_others(sshd: Sshd, tmp_path: Path) -> None:
    source, target = fill(tmp_path / "src", {f"{d:06d}/r_{n}": 100_000 for d in range(3) for n in range(6)}), "dst"
    for folder in source.iterdir():
        folder.chmod(0o555)
    program = (
        "from pathlib import Path; from straxflow.transport import Place, pull, streams; streams.WORTH = 10_000; "
        f"pull(Place({str(source)!r}, {sshd.host!r}), Path({target!r}), ssh_options={sshd.ssh_options!r}, streams=3)"
    )
    # root may write anywhere
    like_others = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    subprocess.run([*like_others, sys.executable, "-c", program], cwd=tmp_path, check=True)
    assert verify_tree(tmp_path / target, hash_tree(source)) == []


def test_a_link_among_the_files(sshd: Sshd, tmp_path: Path) -> None:
    source = fill(tmp_path / "src", sizes())
    (source / "link").symlink_to("/etc/passwd")
    with pytest.raises(Damaged, match="'link' is a link"):
        bring(sshd, source, tmp_path / "dst", streams=3)


def test_a_round_trip_is_measured_without_the_log_in(sshd: Sshd, tmp_path: Path) -> None:
    began = time.monotonic()
    ssh.run(sshd.host, sshd.ssh_options, ["true"])
    with_login = time.monotonic() - began
    assert 0 < ssh.round_trip(sshd.host, sshd.ssh_options) < with_login
    with pytest.raises(LostConnection, match="unreachable"):
        ssh.round_trip(sshd.host, ["-p", "1", *sshd.ssh_options])
    with (
        Sshd(tmp_path / "sshd", extra="ForceCommand true\n") as deaf,
        pytest.raises(LostConnection, match=re.escape(f"ssh {deaf.host}: no answer")),
    ):
        ssh.round_trip(deaf.host, deaf.ssh_options)
