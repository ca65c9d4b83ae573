"""The fork server with real processes: a job behaves like the command it stands for."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from snakemake.benchmark import BenchmarkRecord
from snakemake.shell import shell

from straxflow.config import load
from straxflow.forks.client import ServedJob, pack, unpack
from straxflow.forks.popen import COMMAND, Subprocess
from straxflow.forks.shared import STEPS, STRAX, Servers
from straxflow.forks.start import Started
from straxflow.owner import process_is_gone
from straxflow.transport.ssh import CONNECTIONS

ROOT = Path(__file__).parents[2]

WORK = """
import os, signal, sys, threading, time

LOADED = []

def later():
    LOADED.append("later")

def thread():
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()

def loaded():
    LOADED.append("preload")

def slow():
    open(os.path.dirname(__file__) + "/loading", "w").close()
    time.sleep(1)

def foresee(order):
    folder, words, environment = order
    LOADED.append(f"foreseen:{folder}:{words[0]}:{environment.get('WORD')}")
    if environment.get("WORD") == "bad":
        raise KeyError("not there")

def work(words):
    what, *rest = words
    if what == "say":
        print("out", os.getcwd(), os.environ.get("WORD"), sys.stdin.read(), *rest, *LOADED, flush=True)
        print("err", file=sys.stderr)
    elif what == "exit":
        sys.exit(int(rest[0]))
    elif what == "return":
        return int(rest[0])
    elif what == "raise":
        raise KeyError("a bug")
    elif what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "remember":
        LOADED.append(rest[0])
    elif what == "last":
        LOADED.append(what)
        open(rest[0], "w").close()
        while os.path.exists(rest[0]):
            time.sleep(0.01)
    elif what == "stay":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with open(rest[0], "w") as file:
            file.write(str(os.getpid()))
        time.sleep(60)
    elif what == "wait":
        def stop(*_):
            open(rest[0] + ".stopped", "w").close()
            sys.exit(143)
        signal.signal(signal.SIGTERM, stop)
        with open(rest[0], "w") as file:
            file.write(str(os.getpid()))
        time.sleep(60)
    return 0
"""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Started]]:
    (tmp_path / "some_work.py").write_text(WORK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    started: list[Started] = []

    def begin(
        preload: str = "some_work:loaded", heirs: bool = False, later: tuple[str, ...] = (), foresee: str = ""
    ) -> Started:
        log = tmp_path / "server.log"
        server = Started(sys.executable, "some_work:work", [preload], os.environ, log, heirs, later, foresee)
        started.append(server)
        return server

    yield begin
    for server in started:
        with contextlib.suppress(OSError):
            server.dismiss()  # its heirs, too
        if server.process.poll() is None:
            server.process.kill()


def client(server: Started, *words: str, **options: object) -> "subprocess.Popen[str]":
    code = (
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from straxflow.forks.client import ServedJob\n"
        "try: code = ServedJob(sys.argv[1], sys.argv[2:], os.environ).wait()\n"
        "except (OSError, EOFError): sys.exit('no server')\n"
        "os.kill(os.getpid(), -code) if code < 0 else sys.exit(code)"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, server.address, *words],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,  # type: ignore[call-overload]
    )  # fmt: skip


def result(server: Started, *words: str) -> int:
    one = client(server, *words)
    one.communicate("", timeout=30)
    return one.returncode


def wait_for(condition: Callable[[], object], timeout_s: float = 30) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "did not come true"
        time.sleep(0.01)


def test_words_and_environment_survive_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODD", "a=b\nc")
    folder, words, environment = unpack(pack(Path.cwd(), ["run", "", "ä b", "-n"], os.environ))
    assert (folder, words) == (str(Path.cwd()), ["run", "", "ä b", "-n"])
    assert environment == dict(os.environ)


@pytest.mark.parametrize("word", ["good", "bad"])
def test_what_the_first_job_foretells_is_there_for_all(
    start: Callable[..., Started], tmp_path: Path, word: str
) -> None:
    server = start(foresee="some_work:foresee")
    for other in (word, "other"):
        one = client(server, "say", cwd=tmp_path, env={**os.environ, "WORD": other})
        out, _ = one.communicate("", timeout=30)
        assert (one.returncode, out.split()[-1]) == (0, f"foreseen:{tmp_path}:say:{word}")


def test_a_job_has_the_streams_the_folder_and_the_environment_of_its_client(
    start: Callable[..., Started], tmp_path: Path
) -> None:
    one = client(start(), "say", "x", cwd=tmp_path, env={**os.environ, "WORD": "here"})
    out, err = one.communicate("words in", timeout=30)
    assert (one.returncode, out, err) == (0, f"out {tmp_path} here words in x preload\n", "err\n")


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    """Those of a snakemake, of which nothing was started."""
    for name, value in {"OWN_NAME": "hunter2", "OTHER": "seen", STEPS: "", STRAX: "", CONNECTIONS: ""}.items():
        monkeypatch.setenv(name, value)
    settings = {
        "site": "here",
        "folders": {name: str(tmp_path / name) for name in ("state", "live", "staging")},
        "store": {"folder": str(tmp_path / "store")},
        "daq": {"host": "daq", "folder": str(tmp_path / "daq")},
        "rundb": {"password_env": "OWN_NAME"},
        "runs": {"min_run_number": 1},
        "strax": {"context": "json:loads"},
        "products": {
            "raw": {"from": "live"},
            "peaks": {"from": "raw"},
            "plot": {"from": "raw", "kind": "command", "command": "cp {source} {output}"},
        },
    }
    made = Servers(load(settings), tmp_path, "b")
    yield made
    made.close()


def test_the_server_of_strax_has_no_password_the_one_of_the_steps_has_it(servers: Servers) -> None:
    servers.start_steps()
    servers.start_strax()
    files = [Path(f"/proc/{server.process.pid}/environ") for server in servers._started.values()]
    # a process has none for a moment while it begins
    wait_for(lambda: all(file.read_bytes() for file in files))
    steps, strax = (file.read_bytes().split(b"\0") for file in files)
    assert {b"OWN_NAME=hunter2", b"OTHER=seen"} <= set(steps)
    assert b"OTHER=seen" in strax
    assert not [word for word in strax if b"hunter2" in word]


def test_without_a_server_jobs_start_by_themselves(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/not/there")
    for _ in range(2):
        servers.serve_batch_job([(rule, {"product": "raw"}) for rule in ("process", "checksum")])
    assert not any(os.environ.get(name) for name in (STEPS, STRAX, CONNECTIONS))


def test_a_long_name_of_the_folder_for_temporary_files_does_no_harm(
    start: Callable[..., Started], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    assert result(start(), "say") == 0


@pytest.mark.parametrize(
    ("jobs", "started"),
    [
        (["process raw"], []),
        (["process raw", "checksum raw"], [STEPS]),
        (["process raw", "process plot"], [STEPS]),
        (["process raw", "process peaks"], [STEPS, STRAX]),
    ],
)
def test_a_batch_job_shares_what_several_of_its_jobs_load(
    servers: Servers, jobs: list[str], started: list[str]
) -> None:
    os.environ[STEPS] = "of the head node"
    servers.forget()
    assert STEPS not in os.environ
    targets = [(rule, {"run": "1", "product": product}) for rule, product in map(str.split, jobs)]
    for _ in range(2):
        servers.serve_batch_job(targets)
    assert sorted(servers._started) == sorted(started)
    assert [os.environ.get(name) for name in started] == [servers._started[name].address for name in started]


@pytest.mark.parametrize(
    ("words", "code"), [(["exit", "3"], 3), (["return", "2"], 2), (["raise"], 1), (["kill"], -signal.SIGKILL)]
)
def test_a_client_ends_as_its_job_ended(start: Callable[..., Started], words: list[str], code: int) -> None:
    server = start()
    assert result(server, *words) == code
    # and takes no other with it
    assert result(server, "say") == 0


def test_many_at_once(start: Callable[..., Started]) -> None:
    server = start()
    clients = [client(server, "return", str(i % 7)) for i in range(60)]
    assert [c.wait(60) for c in clients] == [i % 7 for i in range(60)]


def test_the_end_of_all_is_for_the_jobs_of_which_the_server_tells(start: Callable[..., Started]) -> None:
    server = start()
    assert result(server, "say") == 0
    server.process.terminate()
    assert result(server, "return", "3") == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_what_ends_the_whole_group_reaches_the_jobs_of_the_main_process(
    start: Callable[..., Started], tmp_path: Path, number: int
) -> None:
    """It waits for them in threads, which get no signals; the server does."""
    server = start()
    own, others = tmp_path / "own", tmp_path / "others"
    job = ServedJob(server.address, ["wait", str(own)], os.environ)
    other = client(server, "wait", str(others))
    wait_for(lambda: all(file.exists() and file.read_text() for file in (own, others)))
    os.kill(server.process.pid, number)
    assert job.wait(30) == (-signal.SIGINT if number == signal.SIGINT else 143)
    assert job.poll() == job.returncode
    time.sleep(0.2)
    assert not process_is_gone(int(others.read_text()))
    other.kill()
    # what comes later is not meant any more
    wait_for(lambda: ServedJob(server.address, ["return", "3"], os.environ).wait(30) == 3)


def test_under_nohup_a_closed_terminal_is_not_heard(start: Callable[..., Started], tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        server = start()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert result(server, "return", "3") == 3
    job = ServedJob(server.address, ["wait", str(tmp_path / "job")], os.environ)
    wait_for((tmp_path / "job").exists)
    for pid in (server.process.pid, job.pid):
        os.kill(pid, signal.SIGHUP)
    time.sleep(0.2)
    assert job.poll() is None
    assert server.process.poll() is None
    job.kill()


def test_a_job_writes_to_a_terminal_that_others_hold(start: Callable[..., Started], tmp_path: Path) -> None:
    # as after `stty tostop`: who is not in the foreground, and no job is, would be stopped
    starts = (
        "import os, subprocess, sys, termios\n"
        "fields = termios.tcgetattr(0)\n"
        "fields[3] |= termios.TOSTOP\n"
        "termios.tcsetattr(0, termios.TCSANOW, fields)\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\n"
        "from straxflow.forks.client import ServedJob\n"
        "from straxflow.forks.start import Started\n"
        f"server = Started(sys.executable, 'some_work:work', [], os.environ, Path({str(tmp_path / 'log')!r}))\n"
        "code = ServedJob(server.address, ['raise'], os.environ).wait(20)\n"
        "server.dismiss()\n"
        "server.wait()\n"
        f"Path({str(tmp_path / 'code')!r}).write_text(str(code))\n"
    )
    master, slave = os.openpty()
    # a new session, so that this is its terminal
    session = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); exec(sys.argv[1])"
    with subprocess.Popen(
        [sys.executable, "-c", session, starts], stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    ) as one:
        os.close(slave)
        assert one.wait(60) == 0
    assert (tmp_path / "code").read_text() == "1"
    assert b"KeyError: 'a bug'" in os.read(master, 100_000)
    os.close(master)


def test_a_server_that_cannot_be_started_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(FileNotFoundError):
        Started("/no/such/python", "some_work:work", [], os.environ, tmp_path / "server.log")
    assert [path.name for path in tmp_path.iterdir()] == ["server.log"]
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(("preload", "later"), [("some_work:slow", ()), ("some_work:loaded", ("some_work:slow",))])
def test_so_it_does_if_the_server_is_still_loading(
    start: Callable[..., Started], tmp_path: Path, preload: str, later: tuple[str, ...]
) -> None:
    server, marker = start(preload=preload, later=later), tmp_path / "job"
    wait_for((tmp_path / "loading").exists)
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(ServedJob, server.address, ["wait", str(marker)], os.environ) for _ in range(2)]
        time.sleep(0.2)
        os.kill(server.process.pid, signal.SIGINT)
        assert [job.result(30).wait(30) for job in jobs] == [-signal.SIGINT] * 2
    assert not marker.exists()


def test_a_job_keeps_its_number_until_its_client_knows_how_it_ended(start: Callable[..., Started]) -> None:
    job = ServedJob(start().address, ["return", "0"], os.environ)
    time.sleep(0.3)
    # as Snakemake looks at it, to measure it
    psutil.Process(job.pid)
    assert job.wait(30) == 0
    wait_for(lambda: not psutil.pid_exists(job.pid))


def test_a_job_that_runs_longer_than_one_waits(start: Callable[..., Started], tmp_path: Path) -> None:
    job = ServedJob(start().address, ["stay", str(tmp_path / "job")], os.environ)
    with pytest.raises(subprocess.TimeoutExpired):
        job.wait(0.01)
    assert job.poll() is None
    os.killpg(job.pid, signal.SIGKILL)
    assert job.wait(30) == -signal.SIGKILL


@pytest.fixture
def snakemakes_shell(monkeypatch: pytest.MonkeyPatch) -> type[shell]:
    monkeypatch.setattr(sys.modules["snakemake.shell"], "sp", Subprocess())
    return shell


def test_what_a_rule_asks_of_its_shell_a_server_does(
    start: Callable[..., Started], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snakemakes_shell: type[shell]
) -> None:
    server, marker = start(), tmp_path / "job"
    monkeypatch.setenv(STEPS, server.address)
    measured = BenchmarkRecord()
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(snakemakes_shell, f"straxflow-step wait {marker} 2", bench_record=measured)
        wait_for(lambda: marker.exists() and marker.read_text())
        pid = int(marker.read_text())
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
        assert children == [str(pid)]
        assert not [one for one in psutil.Process().children() if one.name() == "bash"]
        wait_for(lambda: measured.max_rss)
        os.kill(pid, signal.SIGTERM)
        with pytest.raises(subprocess.CalledProcessError, match="exit status 143"):
            ended.result(30)
    # of the job, not of who waits for it
    assert 1 < measured.max_rss < psutil.Process().memory_info().rss / 1e6


@pytest.mark.parametrize(
    "command", ["echo straxflow-step wait", "straxflow-step wait; echo", "straxflow-step wait $HOME", "straxflow-step"]
)
def test_all_else_is_for_the_shell(command: str) -> None:
    assert not COMMAND.fullmatch(f"set -euo pipefail;  {command}")


def test_without_a_server_a_job_is_a_process_of_its_own(
    start: Callable[..., Started], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snakemakes_shell: type[shell]
) -> None:
    program, did = tmp_path / "straxflow-step", tmp_path / "did"
    program.write_text(f"#!/bin/sh\necho $@ | tee -a {did}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv(STEPS, str(tmp_path / "gone"))
    snakemakes_shell("straxflow-step register a b")
    assert did.read_text() == "register a b\n"
    # nor does a server write into a pipe
    monkeypatch.setenv(STEPS, start().address)
    assert snakemakes_shell("straxflow-step say x", read=True) == "say x\n"


def test_a_job_whose_client_is_killed_is_told_to_stop(start: Callable[..., Started], tmp_path: Path) -> None:
    marker = tmp_path / "job"
    one = client(start(), "wait", str(marker))
    wait_for(lambda: marker.exists() and marker.read_text())
    one.kill()
    one.wait()
    wait_for((tmp_path / "job.stopped").exists)
    wait_for(lambda: process_is_gone(int(marker.read_text())))


def test_a_client_does_not_end_before_its_job_when_the_server_is_killed(
    start: Callable[..., Started], tmp_path: Path
) -> None:
    server, marker = start(), tmp_path / "job"
    one = client(server, "wait", str(marker))
    wait_for(lambda: marker.exists() and marker.read_text())
    server.process.kill()
    assert one.wait(30) == 1
    assert process_is_gone(int(marker.read_text()))


def test_without_a_server_the_client_says_so(start: Callable[..., Started], tmp_path: Path) -> None:
    server = start(preload="no_such_module")
    server.process.wait(30)
    one = client(server, "say")
    assert one.communicate(timeout=30)[1] == "no server\n"
    assert "no_such_module" in (tmp_path / "server.log").read_text()


def test_a_server_ends_with_its_lifeline_but_not_before_its_jobs(start: Callable[..., Started], tmp_path: Path) -> None:
    server, marker = start(), tmp_path / "job"
    one = client(server, "wait", str(marker))
    wait_for(lambda: marker.exists() and marker.read_text())
    os.close(server._life)
    time.sleep(0.2)
    assert server.process.poll() is None
    os.kill(int(marker.read_text()), signal.SIGTERM)
    assert one.wait(30) == 143
    server.process.wait(30)
    assert not server.folder.exists()


def test_what_the_first_job_loaded_stays_for_the_others(start: Callable[..., Started]) -> None:
    server = start(heirs=True)
    assert result(server, "remember", "numbers") == 0
    one = client(server, "say")
    assert one.communicate("", timeout=30)[0].split()[-2:] == ["preload", "numbers"]
    # forks of the heir leave nothing to each other
    assert result(server, "remember", "words") == 0
    assert client(server, "say").communicate("", timeout=30)[0].split()[-2:] == ["preload", "numbers"]


def said(server: Started) -> list[str]:
    return client(server, "say").communicate("", timeout=30)[0].split()


def test_it_serves_before_all_is_loaded(start: Callable[..., Started], tmp_path: Path) -> None:
    server = start(later=("no_such_module", "some_work:later"))
    assert "preload" in said(server)
    wait_for(lambda: said(server)[-2:] == ["preload", "later"])
    assert "no_such_module" in (tmp_path / "server.log").read_text()


def test_it_serves_no_more_once_something_has_started_a_thread(start: Callable[..., Started], tmp_path: Path) -> None:
    server = start(later=("some_work:thread", "some_work:later"))
    server.process.wait(30)
    assert client(server, "say").communicate(timeout=30)[1] == "no server\n"
    assert "started threads" in (tmp_path / "server.log").read_text()


def test_a_failed_job_is_no_heir(start: Callable[..., Started]) -> None:
    server = start(heirs=True)
    assert result(server, "return", "1") == 1
    assert client(server, "say").communicate("", timeout=30)[0].split()[-1] == "preload"


def test_where_the_heir_is_killed_its_parent_serves_again(start: Callable[..., Started]) -> None:
    server = start(heirs=True)
    assert result(server, "remember", "numbers") == 0
    (heir,) = [
        int(pid) for pid in Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    ]
    os.kill(heir, signal.SIGKILL)
    wait_for(lambda: process_is_gone(heir))
    assert client(server, "say").communicate("", timeout=30)[0].split()[-1] == "preload"


def test_where_the_parent_is_killed_its_heir_serves(start: Callable[..., Started], tmp_path: Path) -> None:
    server, marker = start(heirs=True), tmp_path / "job"
    first = ServedJob(server.address, ["last", str(marker)], os.environ)
    wait_for(marker.exists)
    server.process.kill()
    server.process.wait()
    # it asks while nobody is there, and waits for who comes
    second = client(server, "say")
    marker.unlink()
    assert first.wait(30) == 0
    assert not first.lost
    assert second.communicate("", timeout=30)[0].split()[-2:] == ["preload", "last"]


def test_an_heir_ends_with_the_lifeline_too(start: Callable[..., Started]) -> None:
    server = start(heirs=True)
    assert result(server, "remember", "numbers") == 0
    server.dismiss()
    server.wait()
    assert server.process.poll() == 0


def test_a_killed_server_takes_no_more_though_a_job_of_it_lives(start: Callable[..., Started], tmp_path: Path) -> None:
    server, marker = start(), tmp_path / "job"
    first = client(server, "stay", str(marker))
    wait_for(lambda: marker.exists() and marker.read_text())
    server.process.kill()
    server.process.wait()
    assert not process_is_gone(int(marker.read_text()))
    assert client(server, "say").communicate(timeout=30)[1] == "no server\n"
    os.kill(int(marker.read_text()), signal.SIGKILL)
    assert first.wait(60) == 1
