import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from straxflow.owner import Owner, process_start


def test_this_process_is_alive() -> None:
    me = Owner.current()
    assert me.pid == os.getpid()
    assert not me.is_dead()


def test_another_start_boot_or_host() -> None:
    me = Owner.current()
    assert Owner(me.host, me.boot, me.pid, me.start + 1).is_dead()
    assert Owner(me.host, "0" * 8 + me.boot[8:], me.pid, me.start).is_dead()
    # nobody can tell from here
    assert not Owner("elsewhere", me.boot, me.pid, me.start + 1).is_dead()


def test_an_ended_process_is_dead_even_as_a_zombie() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    me = Owner.current()
    owner = Owner(me.host, me.boot, child.pid, process_start(child.pid) or 0)
    assert not owner.is_dead()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert owner.is_dead(), "a zombie"
    child.communicate()
    assert owner.is_dead()


@settings(deadline=None)
@given(
    st.text("abcdefgh.-_0123456789", min_size=1),
    st.uuids(),
    st.integers(1, 2**22),
    st.integers(0, 2**40),
)
def test_dict_and_token_give_the_owner_back(host: str, boot: object, pid: int, start: int) -> None:
    owner = Owner(host, str(boot), pid, start)
    assert Owner.from_dict(owner.as_dict()) == owner
    token = owner.token()
    assert Owner.from_token(token) == owner
    assert token != owner.token()
    assert "/" not in token


@settings(deadline=None)
@given(st.text())
def test_any_text_is_a_token_or_none(text: str) -> None:
    assert Owner.from_token(text) is None or text.count("~") == 4


def test_a_vanished_pid_is_dead_and_another_containers_mark_is_not() -> None:
    me = Owner.current()
    child = subprocess.Popen([sys.executable, "-c", ""])
    start = process_start(child.pid) or 0
    child.wait()
    assert Owner(me.host, me.boot, child.pid, start).is_dead()
    name, _, mark = me.host.partition("+")
    assert name and mark
    # a machine or container of the same name, whose pids mean nothing here
    assert not Owner(f"{name}+000000", me.boot, child.pid, start).is_dead()
    assert not Owner(f"{name}+000000", "0" * 8 + me.boot[8:], child.pid, start).is_dead()


@pytest.mark.parametrize("options", [["-p", "-f"], ["-p", "-f", "--mount-proc"]])
def test_a_process_in_another_pid_namespace_is_not_judged(options: list[str]) -> None:
    say = (
        "from straxflow.owner import Owner; me = Owner.current(); print(me.token(), me.is_dead(), flush=True); input()"
    )
    command = ["unshare", *options, sys.executable, "-u", "-c", say]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        words = child.stdout.readline().split()
        if not words:
            pytest.skip("a pid namespace may not be made here")
        owner = Owner.from_token(words[0])
        assert owner is not None
        assert words[1] == "False"
        assert owner.host != Owner.current().host
        assert not owner.is_dead()
        child.communicate("\n")
    assert not owner.is_dead(), "nobody can tell from here, so only its lease does"


def test_a_process_may_have_any_name() -> None:
    name = "import ctypes; ctypes.CDLL(None).prctl(15, b'caf\\xe9 (', 0, 0, 0); print(flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout
    child.stdout.readline()
    owner = Owner.of(child.pid)
    assert owner.start
    assert not owner.is_dead()
    child.communicate()
    assert owner.is_dead()


def test_a_child_is_another_owner() -> None:
    mine = Owner.current()
    if (child := os.fork()) == 0:
        theirs = Owner.current()
        os._exit((theirs.pid, theirs.host) == (os.getpid(), mine.host) and theirs != mine and 7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
