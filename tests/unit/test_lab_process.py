"""Pid files tell the truth: about dead processes, recycled pids, and children of the child."""

import time
from pathlib import Path

import pytest

from straxflow.lab.process import LabError, Process, find_program, free_ports, wait_for
from straxflow.lab.slurm import Slurm
from straxflow.owner import process_is_gone


def test_start_and_stop(tmp_path: Path) -> None:
    process = Process(tmp_path, "part")
    process.start(["sh", "-c", "echo hello; sleep 60"], die_with_parent=True)
    assert process.pid is not None
    assert Process(tmp_path, "part").pid == process.pid  # another program finds it
    wait_for("its output", lambda: process.log.read_text() == "hello\n", 5, process.log)
    process.stop()
    assert process.pid is None
    assert not process.pidfile.exists()


def test_a_dead_process_is_not_running(tmp_path: Path) -> None:
    process = Process(tmp_path, "part")
    process.start(["true"], die_with_parent=False)
    deadline = time.monotonic() + 5
    while process.pid is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.pid is None


def test_a_recycled_pid_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "part.pid").write_text("1 0\n")  # pid 1 lives, but started at another time
    process = Process(tmp_path, "part")
    assert process.pid is None
    process.kill()


@pytest.mark.parametrize("text", ["", "garbage", "1 2 3"])
def test_a_damaged_pid_file_means_not_running(tmp_path: Path, text: str) -> None:
    (tmp_path / "part.pid").write_text(text)
    assert Process(tmp_path, "part").pid is None


def test_kill_takes_descendants_and_stubborn_ones(tmp_path: Path) -> None:
    process = Process(tmp_path, "part")
    child = f"echo $$ > {tmp_path}/child; sleep 60"
    process.start(["sh", "-c", f"trap '' TERM; sh -c '{child}'; true"], die_with_parent=True)
    wait_for("the child", (tmp_path / "child").exists, 5, process.log)
    time.sleep(0.1)
    process.stop(seconds=0.2)
    pid = int((tmp_path / "child").read_text())
    time.sleep(0.1)
    assert process_is_gone(pid)


def test_messages(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="apt-get install nothing-at-all"):
        find_program("no-such-program", "nothing-at-all")
    (tmp_path / "log").write_text("the reason\n")
    with pytest.raises(LabError, match="the reason"):
        wait_for("it", lambda: False, 0, tmp_path / "log")
    with pytest.raises(LabError, match="under /tmp"):
        Slurm(tmp_path / ("x" * 100))


def test_free_ports_differ() -> None:
    assert len(set(free_ports(5))) == 5
