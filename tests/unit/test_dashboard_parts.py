"""Parts of the page's data: read seldom, by one thread, and never in anybody's way."""

import threading
import time

import pytest

from straxflow.dashboard import parts
from straxflow.dashboard.parts import Part, Parts, Reading
from straxflow.errors import RunDbError
from tests.site import wait_until


def test_many_who_ask_get_one_reading() -> None:
    reads = []

    def read() -> int:
        time.sleep(0.1)
        reads.append(1)
        return len(reads)

    part = Part(read, 0, every_s=60)
    found: list[Reading[int]] = []
    threads = [threading.Thread(target=lambda: found.append(part.get())) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [reading.value for reading in found] == [1] * 20
    assert part.get().value == 1


def test_it_is_read_again_when_it_is_old() -> None:
    values = iter(range(1, 1000))
    part = Part(lambda: next(values), 0, every_s=0.01)
    assert part.get().value == 1
    wait_until(lambda: part.get().value > 1)


def test_what_was_read_stays_while_it_cannot_be_read_again(caplog: pytest.LogCaptureFixture) -> None:
    errors: list[Exception] = []

    def read() -> str:
        if errors:
            raise errors[0]
        return "good"

    part = Part(read, "nothing", every_s=0.01)
    made = part.get().made
    errors.append(RunDbError("away"))
    wait_until(lambda: part.get().problem == "away")
    assert part.get().value == "good"
    assert (latest := part.get().made) is not None and made is not None and latest >= made
    errors[0] = KeyError("odd")
    wait_until(lambda: "a bug: see the log" in (part.get().problem or ""))
    assert "KeyError" in caplog.text
    errors.clear()
    wait_until(lambda: part.get().problem is None)


def test_what_hangs_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    part = Part(lambda: go.wait(60), False, every_s=0.01, patience_s=0.05)
    began = time.monotonic()
    for _ in range(5):
        assert part.get() == Reading(False)
    assert time.monotonic() - began < 20
    monkeypatch.setattr(parts, "HANGS_S", 0.01)
    assert "does a disk or the network hang?" in (part.get().problem or "")
    assert threading.active_count() < 20
    go.set()
    wait_until(lambda: part.get().value)


def test_what_takes_long_is_read_seldom() -> None:
    reads = []

    def read() -> None:
        reads.append(time.monotonic())
        time.sleep(0.2)

    part = Part(read, None, every_s=0.01)
    wait_until(lambda: part.get() and len(reads) == 3)
    assert reads[2] - reads[1] > 0.2 * parts.REST


def test_only_those_asked_for_last_are_kept() -> None:
    made = []

    def make(key: str) -> Part[str]:
        made.append(key)
        return Part(lambda: key, "", every_s=60)

    several = Parts(make, most=2)
    for key in ("a", "b", "a", "c", "a", "b"):
        assert several.get(key).value == key
    assert made == ["a", "b", "c", "b"]
