"""Several rsyncs side by side for one transfer: over a long line, ssh lets one of them have too little on its way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import replace
from math import ceil
from pathlib import Path

from straxflow.transport.rsync import Item, Rsync
from straxflow.transport.ssh import shared_connection

WINDOW = 2 << 20
"""Bytes that OpenSSH lets one stream have on its way."""
WORTH = 16 * WINDOW
"""Bytes to send for which one more stream is worth its log-in, which takes some 14 round trips."""
FAST, MANY = 125e6, 4
"""Bytes a second that all streams are to bring, 1 Gbit/s, and the most of them: two transfers at once then log in as
often as sshd lets at once (MaxStartups 10)."""


def worth_having(round_trip_s: float) -> int:
    """How many streams fill a fast line with such a round trip."""
    return min(ceil(FAST * round_trip_s / WINDOW), MANY)


class Streams:
    """So many rsyncs of one place, each with a connection of its own; the first one's is the transfer's."""

    def __init__(self, first: Rsync, site_options: Sequence[str], count: int) -> None:
        self.first, self.site_options, self.count = first, site_options, count if first.place.host else 1

    def pull(
        self,
        parts: Sequence[Sequence[str]],
        target: Path,
        link_dests: Sequence[Path],
        timeout_s: float,
        receive: Callable[[Iterator[Item]], None],
    ) -> None:
        """Bring these files, each part over a stream of its own; `receive` is called in as many threads at once.

        The first error of any ends all of them, as does an exception in this thread. Folders without files do not come.
        """
        deadline = time.monotonic() + timeout_s

        def bring(rsync: Rsync, names: Sequence[str]) -> None:
            for portion in rsync.portions(names):
                with rsync.pull(target, link_dests, deadline - time.monotonic(), portion) as items:
                    receive(items)

        with ExitStack() as stack:
            # what was stopped stays so: each time others
            rsyncs = [replace(self.first)]
            for _ in parts[1:]:
                options = stack.enter_context(shared_connection(self.first.place.host, self.site_options))
                rsyncs.append(replace(self.first, ssh_options=options))
            pool = stack.enter_context(ThreadPoolExecutor(len(parts), thread_name_prefix="stream"))
            stack.callback(_stop, rsyncs)
            working = [pool.submit(bring, rsync, names) for rsync, names in zip(rsyncs, parts, strict=True)]
            for one in wait(working, return_when=FIRST_EXCEPTION).done:
                one.result()


def _stop(rsyncs: Sequence[Rsync]) -> None:
    """All at once, as each may take a while."""
    with ThreadPoolExecutor(len(rsyncs)) as pool:
        list(pool.map(Rsync.stop, rsyncs))


def in_parts(files: Sequence[Item], most: int) -> list[list[str]]:
    """The names in parts of as many bytes each, in their order, so that early ones come early everywhere.

    There are fewer parts where there is little, and one at least.
    """
    count = max(min(most, sum(file.size for file in files) // WORTH), 1)
    parts: list[list[str]] = [[] for _ in range(count)]
    sizes = [0] * count
    for file in files:
        least = sizes.index(min(sizes))
        parts[least].append(file.path)
        sizes[least] += file.size
    return parts
