"""Looking through live-data files while others are still on their way; each is read once, unless it changes."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from straxflow.livedata.expectation import LiveExpectation
from straxflow.livedata.layout import CHUNK
from straxflow.livedata.records import FileScan, Window, scan_file

Mark = tuple[int, int, int]
"""What tells that a file is still the same: inode, size in bytes, time of its last change in ns."""


class Scans:
    """Looks through the files of one run's folder, some at a time."""

    def __init__(self, folder: Path, expected: LiveExpectation, workers: int = 1) -> None:
        self.folder, self.expected = folder, expected
        self.pool = ThreadPoolExecutor(max(workers, 1), thread_name_prefix="scan")
        self._begun: dict[str, tuple[Window, Future[tuple[Mark, FileScan]]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pool.shutdown(cancel_futures=True)

    def arrived(self, path: str) -> None:
        """Begin to look through a file that stands now, if it has records of its own."""
        folder, _, thread = path.rpartition("/")
        match = CHUNK.match(folder)
        # of twins only the `_post` is looked through
        if thread and match and match[2] != "_pre":
            self._begin(path, self.expected.window(int(match[1]), overlap=bool(match[2])))

    def result(self, path: str, window: Window) -> FileScan:
        """What a file holds, as it is now.

        Raises:
            OSError: if it cannot be read.
        """
        begun = self._begun.get(path)
        if begun and begun[0] == window:
            mark, scan = begun[1].result()
            if mark == self._mark(path):
                return scan
        return self._scan(path, window)[1]

    def _begin(self, path: str, window: Window) -> None:
        self._begun[path] = window, self.pool.submit(self._scan, path, window)

    def _scan(self, path: str, window: Window) -> tuple[Mark, FileScan]:
        mark = self._mark(path)
        return mark, scan_file(self.folder / path, self.expected.compressor, window)

    def _mark(self, path: str) -> Mark:
        info = (self.folder / path).stat()
        return info.st_ino, info.st_size, info.st_mtime_ns
