"""Signals to the main process reach who handled them before, whatever the main thread is doing."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from straxflow.interrupts import Interrupts


@pytest.fixture(autouse=True)
def same_handlers_afterwards() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_handler_may_take_a_lock_that_the_main_thread_holds() -> None:
    """As snakemake's does; it would wait for itself for ever."""
    lock, handled = threading.Lock(), threading.Event()

    def before(*_: object) -> None:
        with lock:
            handled.set()

    signal.signal(signal.SIGTERM, before)
    interrupts = Interrupts()
    interrupts.watch()
    for _ in range(2):
        with lock:
            os.kill(os.getpid(), signal.SIGTERM)
            assert interrupts.seen
            assert not handled.is_set()
        assert handled.wait(10)
        handled.clear()


def test_ctrl_c_is_raised_where_the_main_thread_is() -> None:
    interrupts = Interrupts()
    interrupts.watch()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert interrupts.seen
