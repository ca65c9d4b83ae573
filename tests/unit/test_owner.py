import os
import subprocess
import sys

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
