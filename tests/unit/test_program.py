"""How the program of a step ends, told apart; an out of memory is a real one, where a control group can be made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from straxflow.errors import Misconfigured, Retryable, StepFailed
from straxflow.forks.start import Started
from straxflow.steps import job as job_module
from straxflow.steps import program
from straxflow.steps.job import Job, Stopped
from straxflow.steps.program import Exit, failure, run_program

CGROUPS = Path("/sys/fs/cgroup")
CONFIG = SimpleNamespace(rundb=SimpleNamespace(password_env="STRAXFLOW_RUNDB_PASSWORD"))


def run(tmp_path: Path, text: str, timeout_s: float = 60) -> Exit:
    (tmp_path / "program.py").write_text(f"import os, signal, sys, time\n{text}")
    log = tmp_path / "log"
    log.write_text("error: of an earlier attempt\n")
    job = cast(Job, SimpleNamespace(run="000001", product="raw", log_file=log, config=CONFIG))
    return run_program(job, [sys.executable, str(tmp_path / "program.py")], {}, timeout_s, tmp_path)


@pytest.mark.parametrize(
    ("text", "expected", "cause"),
    [
        ("pass", "exit code 0", None),
        ("print('error: no such channel', flush=True); print('bye'); sys.exit(3)",
         "exit code 3: error: no such channel | bye", None),
        ("1 / 0", "exit code 1: ZeroDivisionError: division by zero", None),
        ("os.kill(os.getpid(), 9)", "killed by signal 9 (SIGKILL)", "signal"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "killed by signal 11 (SIGSEGV)", "signal"),
        ("sys.exit(128 + 15)", "exit code 143", "signal"),
    ],
)  # fmt: skip
def test_exits_are_told_apart(tmp_path: Path, text: str, expected: str, cause: str | None) -> None:
    ended = run(tmp_path, text)
    assert (str(ended), ended.cause) == (expected, cause)


def test_what_it_leaves_in_the_background_ends_with_it(tmp_path: Path) -> None:
    late = tmp_path / "late"
    assert run(tmp_path, f"os.system('(sleep 0.5; touch {late}) &')").code == 0
    time.sleep(1)
    assert not late.exists()


def test_a_time_out(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match=r"took longer than 0.5 s and was stopped") as caught:
        run(tmp_path, "time.sleep(100)", 0.5)
    assert caught.value.cause == "time-out"


def test_a_second_signal_at_once_does_not_break_off_what_the_first_one_began(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 100.0
    monkeypatch.setattr(job_module, "_asked_by", [])
    monkeypatch.setattr("time.monotonic", lambda: clock)
    with pytest.raises(Stopped):
        job_module._stop(signal.SIGTERM, None)
    job_module._stop(signal.SIGTERM, None)
    # Python may have dropped the first one on its way
    clock += 5
    with pytest.raises(Stopped):
        job_module._stop(signal.SIGTERM, None)


@pytest.mark.parametrize(("oom_kills", "error"), [(0, Retryable), (1, StepFailed)])
def test_a_server_that_is_killed_is_no_fault_of_the_run_unless_memory_was_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, oom_kills: int, error: type[Exception]
) -> None:
    counts = iter((0, oom_kills))
    monkeypatch.setattr(program, "oom_kills", lambda: next(counts))
    (tmp_path / "work.py").write_text("import time\ndef work(words):\n    time.sleep(60)\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    server = Started(sys.executable, "work:work", [], environment, tmp_path / "server.log")
    threading.Timer(1, server.process.kill).start()
    job: Any = SimpleNamespace(run="000001", product="raw", log_file=tmp_path / "log", config=CONFIG)
    with pytest.raises(error, match="run 000001: the process that raw was made by a fork of was killed"):
        run_program(job, [], environment, 60, tmp_path, (server.address, ["a"]))
    server.dismiss()


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    job: Any = SimpleNamespace(run="000001", product="raw", log_file=tmp_path / "log", config=CONFIG)
    with pytest.raises(Misconfigured, match=r"cannot run '/no/such': No such file or directory; check the config"):
        run_program(job, ["/no/such"], {}, 10, tmp_path)


@pytest.fixture
def little_memory() -> Iterator[Path]:
    """A control group that allows 200 MB."""
    v1 = (CGROUPS / "memory" / "cgroup.procs").exists()
    group = (CGROUPS / "memory" if v1 else CGROUPS) / f"straxflow-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if v1 else "memory.max")).write_text("200000000")
    except OSError as error:
        if group.is_dir():
            group.rmdir()
        pytest.skip(f"no control group can be made here: {error}")
    yield group
    group.rmdir()


WITHIN = """
import os, sys
from pathlib import Path
from types import SimpleNamespace
Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
from straxflow.memory import oom_kills
from straxflow.steps.program import run_program
hog = "x = bytearray(600_000_000); x[::4096] = b'x' * len(x[::4096])"
before = oom_kills()
config = SimpleNamespace(rundb=SimpleNamespace(password_env="STRAXFLOW_RUNDB_PASSWORD"))
job = SimpleNamespace(log_file=Path("log"), config=config)
ended = run_program(job, [sys.executable, "-c", hog], {}, 60, Path("."))
print(before, oom_kills(), ended.code, ended.cause, ended, sep="; ")
"""


def test_out_of_memory(tmp_path: Path, little_memory: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    argv = [sys.executable, "-c", WITHIN, str(little_memory)]
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "0; 1; -9; out of memory; killed by signal 9 (SIGKILL), out of memory"


def test_a_full_disk_is_not_the_runs_fault(tmp_path: Path) -> None:
    full = run(tmp_path, "open('/dev/full', 'w').write('x' * 100_000)")
    told = failure(f"run 000001: the command of raw failed: {full}", full.cause)
    assert isinstance(told, Retryable)
    assert str(told).endswith("No space left on device: free some space")
    other = run(tmp_path, "sys.exit('No such luck')")
    assert isinstance(failure(str(other), other.cause), StepFailed)
