"""Reading and writing past the page cache: same bytes at any size, and on file systems that cannot."""

import fcntl
import os
from pathlib import Path

import pytest

from straxflow import uncached
from straxflow.digests import digest_file
from straxflow.publish import copy_tree, hash_tree

MB = 1 << 20
PIECE, BLOCK = uncached.PIECE, uncached.BLOCK
SIZES = (0, 1, MB - 1, MB, MB + 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 9 * MB + 7)


@pytest.mark.parametrize("size", SIZES)
def test_a_copy_and_its_digest_are_the_same_at_any_size(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "file").write_bytes(content)
    copy_tree(tmp_path / "from", tmp_path / "to", hash_tree(tmp_path / "from"))
    assert (tmp_path / "to" / "file").read_bytes() == content
    cold = digest_file(tmp_path / "to", "file", cold=True)
    assert cold == digest_file(tmp_path / "from", "file")
    assert cold.size == size


def test_what_stands_in_memory_only_is_flushed_and_read(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for round_ in range(3):
        file.write_bytes(bytes([round_]) * (3 * MB + 5))
        assert digest_file(tmp_path, "file", cold=True) == digest_file(tmp_path, "file")


def test_a_file_that_cannot_pass_the_cache_is_read_through_it() -> None:
    # procfs refuses O_DIRECT, as some network file systems do
    with Path("/proc/self/limits").open("rb", buffering=0) as file:
        assert not uncached.pass_cache(file.fileno())
        assert b"".join(bytes(p) for p in uncached.pieces(file.fileno())).startswith(b"Limit")


def test_what_a_disk_does_not_take_is_written_through_the_cache(tmp_path: Path) -> None:
    content = os.urandom(3 * BLOCK)
    with uncached.buffer() as piece, (tmp_path / "file").open("wb", buffering=0) as file:
        piece[: 3 * BLOCK] = content
        fd = file.fileno()
        passes = uncached.pass_cache(fd)
        uncached.write(fd, piece[:BLOCK])
        assert bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT) == passes
        uncached.write(fd, piece[BLOCK : BLOCK + 100])
        assert not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT
        # whole blocks, but of an odd place in memory, and to one in the file
        uncached.pass_cache(fd)
        uncached.write(fd, piece[BLOCK + 100 : 2 * BLOCK + 100])
    assert (tmp_path / "file").read_bytes() == content[: 2 * BLOCK + 100]


def test_a_read_that_a_disk_refuses_goes_on_through_the_cache(tmp_path: Path) -> None:
    content = os.urandom(2 * MB + 3)
    (tmp_path / "file").write_bytes(content)
    with (tmp_path / "file").open("rb", buffering=0) as file:
        os.fsync(file.fileno())
        # from an odd place no disk reads
        assert file.read(5) == content[:5]
        assert b"".join(bytes(p) for p in uncached.pieces(file.fileno())) == content[5:]


def test_a_child_does_not_use_the_memory_of_its_parent(tmp_path: Path) -> None:
    with uncached.buffer() as piece:
        piece[:4] = b"ours"
    pid = os.fork()
    if pid == 0:
        with uncached.buffer() as piece:
            piece[:4] = b"mine"
        os._exit(0)
    os.waitpid(pid, 0)
    with uncached.buffer() as piece:
        assert piece[:4] == b"ours"
