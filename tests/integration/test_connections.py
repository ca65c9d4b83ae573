"""Connections over ssh that an invocation keeps for its jobs, with a real sshd."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from straxflow.lab.sshd import Sshd
from straxflow.transport import Place, pull, ssh


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # a socket's path may not be as long as pytest's
    with tempfile.TemporaryDirectory(prefix="straxflow-") as folder:
        monkeypatch.setenv(ssh.CONNECTIONS, folder)
        yield Path(folder)
        ssh.close_connections(Path(folder))


def session(sshd: Sshd) -> int:
    """The process that serves a connection at its other end."""
    return int(ssh.run(sshd.host, sshd.ssh_options, ["sh", "-c", "echo $PPID"]).out)


def masters(folder: Path) -> list[int]:
    return [int(pid) for pid in subprocess.run(["pgrep", "-f", str(folder)], capture_output=True).stdout.split()]


def test_jobs_take_one_connection_over_from_one_another(sshd: Sshd, kept: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(b"data")
    first = session(sshd)
    pull(Place(str(tmp_path / "source"), sshd.host), tmp_path / "target", ssh_options=sshd.ssh_options)
    with ssh.shared_connection(sshd.host, sshd.ssh_options) as options:
        assert "ControlMaster=auto" in options
    assert session(sshd) == first
    assert len(masters(kept)) == 1


def test_two_at_once_have_one_each(sshd: Sshd, kept: Path) -> None:
    first = session(sshd)
    with ssh.kept_connection(sshd.host, sshd.ssh_options):
        second = session(sshd)
        assert second != first
    assert session(sshd) == first
    assert len(masters(kept)) == 2


def test_they_end_with_the_invocation(sshd: Sshd, kept: Path) -> None:
    session(sshd)
    ssh.close_connections(kept)
    assert (masters(kept), list(kept.glob("*.ssh"))) == ([], [])


def test_one_that_was_killed_is_replaced(sshd: Sshd, kept: Path) -> None:
    first = session(sshd)
    for pid in masters(kept):
        os.kill(pid, signal.SIGKILL)
    second = session(sshd)
    assert second != first
    assert session(sshd) == second


def test_outside_of_an_invocation_and_where_the_site_says_how_nothing_is_kept(
    sshd: Sshd, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = [*sshd.ssh_options, "-o", "controlpath=none"]
    for block in (ssh.kept_connection, ssh.shared_connection):
        with block(sshd.host, own) as options:
            assert options == own
    monkeypatch.setenv(ssh.CONNECTIONS, str(kept / "gone"))
    with ssh.kept_connection(sshd.host, sshd.ssh_options) as options:
        assert options == sshd.ssh_options
    assert session(sshd) != session(sshd)
    with ssh.kept_connection(None, ["-x"]) as options:
        assert options == ["-x"]
