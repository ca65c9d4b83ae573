"""The verified transfer: what the sender read is what stands on our disk, file by file."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from straxflow.digests import FileDigest, digest_file, hash_files
from straxflow.errors import Retryable, StepFailed
from straxflow.fsio import fsync_folders, sync_filesystem, walk_files
from straxflow.transport.rsync import PARTIAL, Item, Log, Place, Rsync
from straxflow.transport.ssh import LostConnection, shared_connection

Progress = Callable[[int], None]
Arrived = Callable[[str], None]


class _Pull:
    def __init__(self, rsync: Rsync, target: Path, pool: ThreadPoolExecutor, cold: bool, arrived: Arrived) -> None:
        self.rsync, self.target, self.pool, self.cold, self.arrived = rsync, target, pool, cold, arrived
        self.sent: dict[str, FileDigest] = {}
        self.here: dict[str, Future[FileDigest]] = {}
        self.bytes = 0

    def _arrived(self, item: Item, progress: Progress) -> None:
        self.sent[item.path] = item.as_digest()
        # without a host the sending half reports, and may be ahead of what stands here
        if self.rsync.place.host:
            self.here[item.path] = self._hash(item.path)
            self.arrived(item.path)
        self.bytes += item.size
        progress(self.bytes)

    def _hash(self, path: str) -> Future[FileDigest]:
        return self.pool.submit(digest_file, self.target, path, cold=self.cold, sync=True)

    def transfer(self, link_dests: Sequence[Path], timeout_s: float, progress: Progress) -> None:
        """One rsync; files are flushed and hashed here while the next ones still come."""
        last: Item | None = None
        with self.rsync.pull(self.target, link_dests, timeout_s) as items:
            for item in items:
                if not (item.is_file and item.is_sent):
                    continue
                if earlier := self.sent.pop(item.path, None):
                    self.bytes -= earlier.size
                self.here.pop(item.path, None)
                # rsync tells of a file just before renaming it: it stands once the next one is told of
                if last:
                    self._arrived(last, progress)
                last = item
        if last:
            self._arrived(last, progress)

    def complete(self, timeout_s: float) -> list[Item]:
        """List the source again: nothing may have changed there since."""
        listing = self.rsync.listing(self.target, timeout_s)
        if changed := [item.path for item in listing if item.is_sent]:
            raise LostConnection(
                f"{self.rsync.place}: {len(changed)} files changed or appeared during the transfer "
                f"({changed[0]!r}, ...): still being written?"
            )
        names = {item.path for item in listing}
        for path, _ in walk_files(self.target):
            if path not in names:  # temporary files of a broken connection, or gone at the source by now
                (self.target / path).unlink()
                self.sent.pop(path, None)
        for folder in list(self.target.rglob(PARTIAL)):
            shutil.rmtree(folder)
        return listing

    def _read_there(self, listing: list[Item], paths: list[str], timeout_s: float) -> list[FileDigest]:
        """Digests of some files as the sender reads them now; if they are most of it, it reads all, which needs no list
        of names."""
        wanted = set(paths)
        most = 2 * sum(item.size for item in listing if item.path in wanted) >= sum(item.size for item in listing)
        found = self.rsync.digests(timeout_s, None if most else paths)
        return [file for file in found if file.path in wanted]

    def compare(self, listing: list[Item], timeout_s: float) -> tuple[list[FileDigest], list[str]]:
        """Digests here, and a message for each file that is not what the sender has."""
        skipped = [item.path for item in listing if item.path not in self.sent]
        for item in listing:
            if item.path in self.sent and item.path not in self.here:
                self.here[item.path] = self._hash(item.path)
        there: dict[str, FileDigest] = {}
        if skipped:
            reading = self.pool.submit(hash_files, self.target, skipped, cold=self.cold)
            # an attempt that was killed may not have flushed what it left
            sync_filesystem(self.target)
            self.sent |= {f.path: f for f in self._read_there(listing, skipped, timeout_s)}
            there = {f.path: f for f in reading.result()}
        found, bad = [], []
        for item in listing:
            have = there.get(item.path) or self.here[item.path].result()
            want = self.sent.get(item.path)
            found.append(have)
            if have != want:
                said = f"{want.size} bytes, {want.digest}" if want else "nothing"
                bad.append(f"{item.path!r}: on disk {have.size} bytes, {have.digest}; the sender read {said}")
                (self.target / item.path).unlink()
                self.sent.pop(item.path, None)
        return found, bad


def pull(
    source: Place,
    target: Path,
    *,
    rsync_args: Sequence[str] = ("-a",),
    ssh_options: Sequence[str] = (),
    link_dests: Sequence[Path] = (),
    timeout_s: float = 24 * 3600,
    idle_s: int = 120,
    retries: int = 3,
    pause_s: float = 2.0,
    cold: bool = False,
    log: Log = lambda _: None,
    progress: Progress = lambda _: None,
    arrived: Arrived = lambda _: None,
) -> list[FileDigest]:
    """Bring all files of `source` to `target`, a private folder, flushed to disk and verified.

    Each file's xxh128 as the sender read it is compared with what is read here (with `cold` past the page
    cache). Files that are the same in `link_dests` (folders of earlier, dead attempts, same filesystem; only
    read) are linked and then read on both sides. `progress` gets the bytes arrived so far, `arrived` the path of a file
    that stands here now, not yet verified; what was there before is not told of, what comes anew is again.

    Raises:
        Retryable: unreachable, connection lost `retries` times, out of time, disk full, source changing.
        StepFailed: no such source, no permission, or different digests twice.
        Damaged: the source holds links or special files.
        ConfigError: arguments that would undo the verification.
    """
    deadline = time.monotonic() + timeout_s
    target.mkdir(exist_ok=True)
    left = retries
    with (
        shared_connection(source.host, ssh_options) as options,
        ThreadPoolExecutor(2, thread_name_prefix="hash") as pool,
    ):
        rsync = Rsync(source, rsync_args, options, idle_s, log)
        work = _Pull(rsync, target, pool, cold, arrived)
        repaired = False
        while True:
            try:
                work.transfer(link_dests, deadline - time.monotonic(), progress)
                listing = work.complete(deadline - time.monotonic())
                found, bad = work.compare(listing, deadline - time.monotonic())
            except LostConnection as error:
                pause = pause_s * 2 ** (retries - left)
                if left == 0 or time.monotonic() + pause > deadline:
                    raise Retryable(f"{error}; given up after {retries - left + 1} tries") from error
                left -= 1
                log(f"{error}; again in {pause:g} s")
                time.sleep(pause)
                continue
            if not bad:
                break
            log("digests differ: " + "; ".join(bad))
            if repaired:
                raise StepFailed(f"{source}: arrived differently, twice: {'; '.join(bad[:5])}: check disk and memory")
            repaired, link_dests = True, ()
    progress(sum(f.size for f in found))
    fsync_folders(target)
    return sorted(found)
