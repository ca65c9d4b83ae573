"""Which files of a transfer go over which of its connections."""

import pytest

from straxflow.transport.rsync import Item
from straxflow.transport.streams import MANY, WORTH, in_parts, worth_having


def item(path: str, size: int) -> Item:
    return Item(">f", "", size, path)


def test_parts_have_as_many_bytes_and_the_first_files_first() -> None:
    files = [item(f"{number:06d}/r", WORTH // 2) for number in range(12)]
    parts = in_parts(files, 3)
    assert [part[0] for part in parts] == ["000000/r", "000001/r", "000002/r"]
    assert [len(part) for part in parts] == [4, 4, 4]
    assert sorted(name for part in parts for name in part) == [file.path for file in files]
    assert all(part == sorted(part) for part in parts)


def test_one_large_file_has_a_part_of_its_own() -> None:
    parts = in_parts([item("large", 4 * WORTH), *(item(str(n), 1000) for n in range(5))], 2)
    assert parts == [["large"], ["0", "1", "2", "3", "4"]]


@pytest.mark.parametrize(("total", "count"), [(0, 1), (WORTH, 1), (2 * WORTH - 1, 1), (2 * WORTH, 2), (99 * WORTH, 4)])
def test_little_is_not_worth_a_log_in(total: int, count: int) -> None:
    assert len(in_parts([item("a", total // 2), item("b", total - total // 2)], 4)) == count
    assert in_parts([], 4) == [[]]


@pytest.mark.parametrize(("milliseconds", "streams"), [(0.05, 1), (10, 1), (20, 2), (50, 3), (300, MANY)])
def test_as_many_as_fill_a_fast_line(milliseconds: float, streams: int) -> None:
    assert worth_having(milliseconds / 1e3) == streams
