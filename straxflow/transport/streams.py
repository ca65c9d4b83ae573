"""Several rsyncs side by side for one transfer: over a long line, ssh lets one of them have too little on its way."""

from __future__ import annotations

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
FAST, MANY = 125e6, 8
"""Bytes a second that all streams are to bring, 1 Gbit/s, and the most of them."""


def worth_having(round_trip_s: float) -> int:
    """How many streams fill a fast line with such a round trip."""
    return min(ceil(FAST * round_trip_s / WINDOW), MANY)


class Streams:
    """So many rsyncs of one place, each with a connection of its own; the first one's is the transfer's."""

    def __init__(self, first: Rsync, site_options: Sequence[str], count: int) -> None:
        self.first, self.site_options, self.count = first, site_options, count if first.place.host else 1

    def pull(
        self,
        files: Sequence[Item],
        target: Path,
        link_dests: Sequence[Path],
        timeout_s: float,
        receive: Callable[[Iterator[Item]], None],
    ) -> None:
        """Bring these files; `receive` is called at once in as many threads as there are streams.

        The first error of any ends all of them, as does an exception in this thread.
        """
        parts = in_parts(files, self.count)

        def bring(rsync: Rsync, names: Sequence[str]) -> None:
            for portion in rsync.portions(names):
                with rsync.pull(target, link_dests, timeout_s, portion) as items:
                    receive(items)

        with ExitStack() as stack:
            # what was stopped stays so: each time others
            rsyncs = [replace(self.first)]
            for _ in parts[1:]:
                options = stack.enter_context(shared_connection(self.first.place.host, self.site_options))
                rsyncs.append(replace(self.first, ssh_options=options))
            pool = stack.enter_context(ThreadPoolExecutor(max(len(parts), 1), thread_name_prefix="stream"))
            for rsync in rsyncs:
                stack.callback(rsync.stop)
            working = [pool.submit(bring, rsync, names) for rsync, names in zip(rsyncs, parts, strict=True)]
            for one in wait(working, return_when=FIRST_EXCEPTION).done:
                one.result()


def in_parts(files: Sequence[Item], most: int) -> list[list[str]]:
    """The names in parts with as many bytes to send each, in their order, so that early ones come early everywhere.

    There are fewer parts where little is to be sent, and one at least.
    """
    to_send = [file.size if file.is_sent else 0 for file in files]
    count = max(min(most, sum(to_send) // WORTH), 1)
    parts: list[list[str]] = [[] for _ in range(count)]
    sizes = [0] * count
    for file, size in zip(files, to_send, strict=True):
        least = sizes.index(min(sizes))
        parts[least].append(file.path)
        sizes[least] += size
    return parts
