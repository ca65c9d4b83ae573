"""The last look at a transfer's source: one round trip where a shell may wait there, and rsync's own where not."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from straxflow.digests import hash_tree
from straxflow.errors import Damaged, Retryable
from straxflow.lab.sshd import Sshd
from straxflow.transport import Place, pull, ssh
from straxflow.transport.lastlook import LastLook
from straxflow.transport.rsync import PARTIAL, Item, Rsync
from tests.integration.test_transport import ODD, bring, fill

ONLY_RSYNC = "ForceCommand case $SSH_ORIGINAL_COMMAND in rsync*|true) exec $SSH_ORIGINAL_COMMAND;; esac; exit 1\n"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The second rsyncs that were needed."""
    found: list[str] = []
    listing = Rsync.listing

    def noted(self: Rsync, target: Path, timeout_s: float) -> list[Item]:
        found.append(str(self.place))
        return listing(self, target, timeout_s)

    monkeypatch.setattr(Rsync, "listing", noted)
    return found


@pytest.fixture
def before_the_word(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Have something happen once, when all has come, before the source is looked at again."""

    def arrange(happens: Callable[[], object]) -> None:
        listing, left = LastLook.listing, [happens]

        def late(self: LastLook, target: Path) -> list[Item] | None:
            while left:
                left.pop()()
            return listing(self, target)

        monkeypatch.setattr(LastLook, "listing", late)

    return arrange


def waiting_shells(source: Path) -> list[str]:
    found = subprocess.run(["pgrep", "-af", "read -r word"], capture_output=True, text=True)
    return [line for line in found.stdout.splitlines() if str(source) in line]


def test_it_needs_no_second_rsync_for_any_names(sshd: Sshd, tmp_path: Path, asked: list[str]) -> None:
    source = tmp_path / "a 'place' with $HOME"
    for name in ODD:
        (source / "dir").mkdir(parents=True, exist_ok=True)
        Path(os.fsdecode(bytes(source / "dir") + b"/" + name)).write_bytes(os.urandom(10))
    found = bring(sshd, source, tmp_path / "dst")
    assert not asked
    assert found == sorted(hash_tree(source).files)
    assert not waiting_shells(source)


@pytest.mark.parametrize("change", ["new", "longer", "touched", "gone"])
def test_a_change_after_all_has_come_is_seen(
    sshd: Sshd, tmp_path: Path, asked: list[str], before_the_word: Callable[..., None], change: str
) -> None:
    source = fill(tmp_path / "src")
    file = source / "m.json"
    happens = {
        "new": lambda: (source / "late").write_bytes(b"late"),
        "longer": lambda: file.write_bytes(os.urandom(100)),
        "touched": lambda: os.utime(file, (1e9, 1e9)),
        "gone": file.unlink,
    }
    before_the_word(happens[change])
    log: list[str] = []
    if change == "gone":
        with pytest.raises(Damaged, match=r"1 files that had arrived from there, 99 bytes, are gone there: 'm.json'"):
            bring(sshd, source, tmp_path / "dst", log=log.append)
    else:
        bring(sshd, source, tmp_path / "dst", log=log.append)
        assert any("still being written" in line for line in log)
        assert hash_tree(tmp_path / "dst") == hash_tree(source)
    assert not asked and not waiting_shells(source)


def test_a_link_that_appears_is_told_of_by_rsync(
    sshd: Sshd, tmp_path: Path, asked: list[str], before_the_word: Callable[..., None]
) -> None:
    source = fill(tmp_path / "src")
    before_the_word(lambda: (source / "link").symlink_to("/etc/passwd"))
    with pytest.raises(Damaged, match="'link' is a link"):
        bring(sshd, source, tmp_path / "dst")
    assert len(asked) == 1


def test_a_host_that_lets_only_rsync_in(tmp_path: Path, asked: list[str]) -> None:
    source = fill(tmp_path / "src")
    with Sshd(tmp_path / "sshd", extra=ONLY_RSYNC) as sshd:
        bring(sshd, source, tmp_path / "dst")
    assert len(asked) == 1
    assert hash_tree(tmp_path / "dst") == hash_tree(source)


def test_the_shell_is_killed_before_the_word(
    sshd: Sshd, tmp_path: Path, asked: list[str], before_the_word: Callable[..., None]
) -> None:
    source = fill(tmp_path / "src")
    before_the_word(lambda: subprocess.run(["pkill", "-9", "-f", f"read -r word.* {source}"], check=True))
    bring(sshd, source, tmp_path / "dst")
    assert len(asked) == 1
    assert hash_tree(tmp_path / "dst") == hash_tree(source)


@pytest.mark.parametrize("broken", ["exit 1", "exec busybox_find_without_printf", "printf 'f 1 1.0 x'; exit 0"])
def test_a_find_that_fails_or_is_another(tmp_path: Path, asked: list[str], broken: str) -> None:
    source = fill(tmp_path / "src")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "find").write_text(f"#!/bin/sh\n{broken}\n")
    (programs / "find").chmod(0o755)
    forced = f'ForceCommand PATH="{programs}:$PATH" exec sh -c "$SSH_ORIGINAL_COMMAND"\n'
    with Sshd(tmp_path / "sshd", extra=forced) as sshd:
        bring(sshd, source, tmp_path / "dst")
    assert len(asked) == 1
    assert hash_tree(tmp_path / "dst") == hash_tree(source)


def test_options_that_leave_files_out_are_rsyncs_own_affair(sshd: Sshd, tmp_path: Path, asked: list[str]) -> None:
    source = fill(tmp_path / "src")
    # a wrapper around rsync may see other files than a shell does
    wrapper = tmp_path / "wrapper"
    wrapper.write_text('#!/bin/sh\nexec rsync "$@"\n')
    wrapper.chmod(0o755)
    bring(sshd, source, tmp_path / "dst0", rsync_args=["-a", f"--rsync-path={wrapper}"])
    assert len(asked) == 1
    found = bring(sshd, source, tmp_path / "dst", rsync_args=["-a", "--exclude=m.json"])
    assert [file.path for file in found] == ["000000/r_0", "000000_post/r_0", "THE_END/r"]
    assert len(asked) == 2


def test_no_answer_in_time_and_none_is_asked_for_again(sshd: Sshd, tmp_path: Path) -> None:
    place = Place(str(fill(tmp_path / "src")), sshd.host)
    silent = ["-o", "ProxyCommand=sleep 100", *sshd.ssh_options]
    began = time.monotonic()
    with LastLook(place, ["-a"], silent, timeout_s=0.3) as look:
        look.prepare()
        assert look.listing(tmp_path / "dst") is None
        # ssh gives up by itself, but much later
        assert time.monotonic() - began < ssh.CONNECT_S / 2
        look.prepare()
        assert subprocess.run(["pgrep", "-f", f"ssh.*read -r word.*{place.path}"]).returncode == 1


@pytest.mark.parametrize("persist", [[], ["ControlPersist=no"], ["ControlPersist=5"]])
def test_where_the_site_says_how_connections_are_shared_rsync_looks(
    sshd: Sshd, tmp_path: Path, asked: list[str], persist: list[str]
) -> None:
    """A connection that does not go to the background ends when all have left it: the shell must not wait in it."""
    source = fill(tmp_path / "src")
    with tempfile.TemporaryDirectory(prefix="sf-", dir="/tmp") as short:
        words = ["ControlMaster=auto", f"ControlPath={short}/s", *persist]
        options = [*sshd.ssh_options, *(word for one in words for word in ("-o", one))]
        pull(Place(str(source), sshd.host), tmp_path / "dst", ssh_options=options, timeout_s=30, retries=0)
        ssh.close_connections(Path(short))
    assert len(asked) == 1
    assert hash_tree(tmp_path / "dst") == hash_tree(source)


def test_a_path_too_long_for_a_socket_shares_nothing(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even by the user's own configuration."""
    source, config = fill(tmp_path / "src"), tmp_path / "config"
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with tempfile.TemporaryDirectory(prefix="sf-", dir="/tmp") as short:
        config.write_text(f"ControlMaster auto\nControlPath {short}/s\n")
        options = ["-F", str(config), *sshd.ssh_options[2:]]
        pull(Place(str(source), sshd.host), tmp_path / "dst", ssh_options=options, timeout_s=30, retries=0)
    assert hash_tree(tmp_path / "dst") == hash_tree(source)


def test_what_a_broken_transfer_left_is_no_file_of_the_run_but_a_file_of_that_name_is(
    sshd: Sshd, tmp_path: Path, asked: list[str]
) -> None:
    source = fill(tmp_path / "src")
    (source / PARTIAL).mkdir()
    (source / PARTIAL / "r_0").write_bytes(b"half")
    found = bring(sshd, source, tmp_path / "dst")
    assert len(found) == 4 and not asked
    shutil.rmtree(source / PARTIAL)
    (source / PARTIAL).write_bytes(b"odd")
    found = bring(sshd, source, tmp_path / "dst2", retries=0)
    assert [file.path for file in found if file.path == PARTIAL] and len(found) == 5


def test_nothing_waits_after_a_failure(sshd: Sshd, tmp_path: Path, before_the_word: Callable[..., None]) -> None:
    source = fill(tmp_path / "src")

    def fail() -> None:
        assert waiting_shells(source)
        raise Retryable("something else")

    before_the_word(fail)
    with pytest.raises(Retryable, match="something else"):
        pull(Place(str(source), sshd.host), tmp_path / "dst", ssh_options=sshd.ssh_options)
    assert not waiting_shells(source)
