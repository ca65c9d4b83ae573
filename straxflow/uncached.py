"""Files read and written past the page cache: as their disk has them, and without filling memory that others use.

Where a filesystem cannot, or at the odd end of a file, the page cache is used after all, without what it held before.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager

BLOCK = 4096
PIECE, CACHED = 4 << 20, 1 << 20
"""Bytes that a disk, and the page cache, are asked for at once."""
SMALL = 1 << 20
"""Of smaller files, to switch and to ask takes longer than memory does."""
_spare: list[mmap.mmap] = []
# they are shared memory: no child may use those of its parent
os.register_at_fork(after_in_child=_spare.clear)


@contextmanager
def buffer() -> Iterator[memoryview]:
    """Memory for a piece, placed as disks want it.

    Shared memory, since what a disk reads into other memory goes astray if a thread forks meanwhile (open(2)); used
    again, since to clear it takes longer than to fill it.
    """
    try:
        memory = _spare.pop()
    except IndexError:
        memory = mmap.mmap(-1, PIECE)
    try:
        yield memoryview(memory)
    finally:
        _spare.append(memory)


def pieces(fd: int, past: bool = True) -> Iterator[memoryview]:
    """What an open file holds, piece by piece, each gone when the next one is asked for; also from the page cache."""
    past = past and pass_cache(fd)
    with buffer() as piece, open(fd, "rb", buffering=0, closefd=False) as file:
        # the processor's own cache holds the smaller one until it is looked at
        piece = piece if past else piece[:CACHED]
        while True:
            try:
                count = file.readinto(piece)
            except OSError as error:
                if not past or error.errno != errno.EINVAL:
                    raise
                past = pass_cache(fd, False)
                continue
            if not count:
                return
            yield piece[:count]


def write(fd: int, piece: memoryview) -> None:
    """Write all of a piece that begins where a `buffer` does; an odd end through the cache."""
    if len(piece) % BLOCK:
        pass_cache(fd, False)
    while piece:
        try:
            piece = piece[os.write(fd, piece) :]
        except OSError as error:
            # what is left of a piece that did not fit at once, or a filesystem that counts in other blocks
            if error.errno != errno.EINVAL or not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
                raise
            pass_cache(fd, False)


def pass_cache(fd: int, yes: bool = True) -> bool:
    """Have an open file pass the page cache from now on, or not; whether it does."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_DIRECT if yes else flags & ~os.O_DIRECT)
    except OSError:
        return False
    return yes
