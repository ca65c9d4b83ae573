"""The verified transfer: what the sender read is what stands on our disk, file by file."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from straxflow.digests import FileDigest, digest_file, hash_files
from straxflow.errors import Retryable, StepFailed
from straxflow.fsio import fsync_folders, sync_filesystem
from straxflow.transport.rsync import PARTIAL, Item, Log, Place, Rsync
from straxflow.transport.ssh import LostConnection, shared_connection

Progress = Callable[[int], None]
Arrived = Callable[[str], None]


PORTION = 64 << 20
"""So many bytes of files that were here before are read at a time, each file counted as 100 kB more: to hand over a
small one takes longer than to read it."""


class _Pull:
    def __init__(self, rsync: Rsync, target: Path, pool: ThreadPoolExecutor, arrived: Arrived) -> None:
        self.rsync, self.target, self.pool, self.arrived = rsync, target, pool, arrived
        self.sent: dict[str, FileDigest] = {}
        """What came over, as the sender read it."""
        self.here: dict[str, Future[FileDigest]] = {}
        self.unsent: dict[str, int] = {}
        """Sizes of what was here before; none of it is in `sent`."""
        self.before: list[Future[list[FileDigest]]] = []
        """Of that, what stands here: it is read while rsync still goes through the rest."""
        self._portion: list[str] = []
        self._portion_bytes = 0
        self.bytes = 0
        self.flushed = False
        """Whether the names in the folders are on the disk too, as they are now."""

    def _arrived(self, item: Item, progress: Progress) -> None:
        self.sent[item.path] = item.as_digest()
        # without a host the sending half reports, and may be ahead of what stands here
        if self.rsync.place.host:
            self.here[item.path] = self._hash(item.path)
            self.arrived(item.path)
        self.bytes += item.size
        progress(self.bytes)

    def _hash(self, path: str) -> Future[FileDigest]:
        return self.pool.submit(digest_file, self.target, path, sync=True)

    def transfer(self, link_dests: Sequence[Path], timeout_s: float, progress: Progress) -> None:
        """One rsync; files are flushed and hashed here while the next ones still come."""
        last: Item | None = None
        with self.rsync.pull(self.target, link_dests, timeout_s) as items:
            for item in items:
                if not item.is_file:
                    continue
                if not item.is_sent:
                    self._was_here(item)
                    continue
                if earlier := self.sent.pop(item.path, None):
                    self.bytes -= earlier.size
                self.here.pop(item.path, None)
                self.unsent.pop(item.path, None)
                # rsync tells of a file just before renaming it: it stands once the next one is told of
                if last:
                    self._arrived(last, progress)
                last = item
        if last:
            self._arrived(last, progress)
        self._read_portion()

    def _was_here(self, item: Item) -> None:
        if item.path in self.sent or item.path in self.unsent:
            return
        self.unsent[item.path] = item.size
        self._portion.append(item.path)
        self._portion_bytes += item.size + 100_000
        if self._portion_bytes >= PORTION:
            self._read_portion()

    def _read_portion(self) -> None:
        if self._portion:
            self.before.append(self.pool.submit(hash_files, self.target, self._portion, threads=1))
        self._portion, self._portion_bytes = [], 0

    def there(self, timeout_s: float) -> dict[str, FileDigest]:
        """What the sender has, by path, as it read it; nothing may have changed there since it was brought."""
        self.flushed = bool(self.unsent)
        # an attempt that was killed may not have flushed what it left
        flushing = self.pool.submit(sync_filesystem, self.target) if self.unsent else None
        sizes = self.unsent | {path: file.size for path, file in self.sent.items()}
        if self.unsent and 2 * sum(self.unsent.values()) >= sum(sizes.values()):
            # it reads all, which needs no list of names, and no other listing
            digests = self.rsync.digests(timeout_s)
            # what a broken transfer left at the source never comes over
            found = {file.path: file for file in digests if PARTIAL not in file.path.split("/")}
            changed = [p for p, f in found.items() if f.size != sizes.get(p) or f != self.sent.get(p, f)]
        else:
            listing = self.rsync.listing(self.target, timeout_s)
            names = [item.path for item in listing if item.path in self.unsent]
            read = {file.path: file for file in self.rsync.digests(timeout_s, names)} if names else {}
            known = self.sent | read
            changed = [item.path for item in listing if item.is_sent or item.path not in known]
            found = {item.path: known[item.path] for item in listing if item.path in known}
        if flushing:
            flushing.result()
        if changed:
            raise LostConnection(
                f"{self.rsync.place}: {len(changed)} files changed or appeared during the transfer "
                f"({changed[0]!r}, ...): still being written?"
            )
        return found

    def compare(self, there: Mapping[str, FileDigest]) -> tuple[list[FileDigest], list[str]]:
        """Digests here, and a message for each file that is not what the sender has."""
        for path in self.sent.keys() - self.here.keys():
            self.here[path] = self._hash(path)
        before = {file.path: file for reading in self.before for file in reading.result()}
        found, bad = [], []
        for path, want in there.items():
            have = self.here[path].result() if path in self.sent else before[path]
            found.append(have)
            if have != want:
                said = f"the sender read {want.size} bytes, {want.digest}"
                bad.append(f"{path!r}: on disk {have.size} bytes, {have.digest}; {said}")
                (self.target / path).unlink()
                self.sent.pop(path, None)
                self.unsent.pop(path, None)
        return found, bad

    def drop_surplus(self, there: Container[str], folder: str = "") -> None:
        """Remove temporary files of a broken connection, links, and what is gone at the source by now."""
        with os.scandir(self.target / folder) as found:
            entries = list(found)
        for entry in entries:
            path = folder + entry.name
            if not entry.is_dir(follow_symlinks=False):
                if path not in there:
                    Path(entry.path).unlink()
                    self.flushed = False
            elif entry.name == PARTIAL:
                shutil.rmtree(entry.path)
            else:
                self.drop_surplus(there, path + "/")


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
    log: Log = lambda _: None,
    progress: Progress = lambda _: None,
    arrived: Arrived = lambda _: None,
) -> list[FileDigest]:
    """Bring all files of `source` to `target`, a private folder, flushed to disk and verified.

    Each file's xxh128 as the sender read it is compared with what is read here. Files that are the same in `target` or
    `link_dests` (folders of earlier attempts, same filesystem; only read, and linked) are read on both sides.
    `progress` gets the bytes arrived so far, `arrived` the path of a file that stands here now, not yet verified; what
    was there before is not told of, what comes anew is again.

    Raises:
        Retryable: unreachable, connection lost `retries` times, out of time, disk full, source changing.
        StepFailed: no such source, no permission, or different digests twice.
        Damaged: the source holds links or special files.
        ConfigError: arguments that would undo the verification.
    """
    deadline = time.monotonic() + timeout_s
    target.mkdir(exist_ok=True)
    left = retries
    pool = ThreadPoolExecutor(2, thread_name_prefix="hash")
    try:
        with shared_connection(source.host, ssh_options) as options:
            work = _Pull(Rsync(source, rsync_args, options, idle_s, log), target, pool, arrived)
            repaired = False
            while True:
                try:
                    work.transfer(link_dests, deadline - time.monotonic(), progress)
                    there = work.there(deadline - time.monotonic())
                except LostConnection as error:
                    pause = pause_s * 2 ** (retries - left)
                    if left == 0 or time.monotonic() + pause > deadline:
                        raise Retryable(f"{error}; given up after {retries - left + 1} tries") from error
                    left -= 1
                    log(f"{error}; again in {pause:g} s")
                    time.sleep(pause)
                    continue
                found, bad = work.compare(there)
                if not bad:
                    break
                log("digests differ: " + "; ".join(bad))
                if repaired:
                    raise StepFailed(
                        f"{source}: arrived differently, twice: {'; '.join(bad[:5])}: check disk and memory"
                    )
                repaired, link_dests = True, ()
    finally:
        pool.shutdown(cancel_futures=True)
    work.drop_surplus(there)
    progress(sum(f.size for f in found))
    if not work.flushed:
        fsync_folders(target)
    return sorted(found)
