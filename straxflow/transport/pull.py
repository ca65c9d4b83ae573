"""The verified transfer: what the sender read is what stands on our disk, file by file."""

from __future__ import annotations

import errno
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from straxflow import uncached
from straxflow.digests import FileDigest, digest_file
from straxflow.errors import Damaged, Retryable, StepFailed
from straxflow.fsio import differs_name, fsync_folders, fsync_tree, rename_noreplace, sync_filesystem
from straxflow.transport.lastlook import LastLook
from straxflow.transport.rsync import PARTIAL, Item, Log, Place, Rsync, is_partial
from straxflow.transport.ssh import LostConnection, shared_connection
from straxflow.transport.streams import Streams, in_parts

Progress = Callable[[int], None]
Arrived = Callable[[str], None]


PORTION = 64 << 20
"""So many bytes of files that were here before are read at a time, each file counted as 100 kB more: to hand over a
small one takes longer than to read it."""
_TEMP_FOLDER = re.compile(r"\d{6}(_pre|_post)?_temp/\Z")
"""Where redax has a file until it is whole, in the folder of a run; then it renames it out of there."""
_TEMP_FILE = re.compile(r"\.(.+)\.([A-Za-z0-9]{6}|\d{1,5})\Z", re.DOTALL)
"""What rsync has of a file until it is whole; it is left only if rsync is killed."""


class _Pull:
    def __init__(
        self, streams: Streams, look: LastLook, target: Path, pool: ThreadPoolExecutor, arrived: Arrived
    ) -> None:
        self.streams, self.rsync, self.look = streams, streams.first, look
        self.target, self.pool, self.arrived = target, pool, arrived
        self._lock = threading.Lock()
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
        self.listed = set[str]()
        """What the streams were to bring."""
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
        return self.pool.submit(self._digest, path, sync=True)

    def _digest(self, path: str, *, cold: bool = False, sync: bool = False, write: bool = False) -> FileDigest:
        try:
            return digest_file(self.target, path, cold=cold, sync=sync, write=write)
        except OSError as error:
            # what its disk failed to take may still look whole in memory, and the error is told but once: nobody may
            # ever come to hear of it here, if the connection is lost too, so the file must not outlive it
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                with suppress(OSError):
                    (self.target / path).unlink()
            raise

    def transfer(self, link_dests: Sequence[Path], timeout_s: float, progress: Progress) -> None:
        """One rsync, or several; files are flushed and hashed here while the next ones still come."""

        def receive(items: Iterator[Item]) -> None:
            last: Item | None = None
            for item in items:
                if item.is_sent:
                    # a connection stands now; where nothing is sent, the sender's digests tell what is there
                    self.look.prepare()
                with self._lock:
                    last = self._received(item, last, progress)
            # rsync has ended only when the block ends in which its items come
            lasts.append(last)

        lasts: list[Item | None] = []
        deadline = time.monotonic() + timeout_s
        parts = self._parts(timeout_s)
        timeout_s = deadline - time.monotonic()
        if len(parts) > 1:
            # not in a thread of a stream, with which it would end
            self.look.prepare()
            self.streams.pull(parts, self.target, link_dests, timeout_s, receive)
        else:
            with self.rsync.pull(self.target, link_dests, timeout_s) as items:
                receive(items)
        for last in filter(None, lasts):
            self._arrived(last, progress)
        self._read_portion()

    def _received(self, item: Item, last: Item | None, progress: Progress) -> Item | None:
        """Take note of what rsync tells of; a file just before renaming it: it stands once the next one is told of."""
        if not item.is_file:
            return last
        if not item.is_sent:
            self._was_here(item)
            return last
        if earlier := self.sent.pop(item.path, None):
            self.bytes -= earlier.size
        self.here.pop(item.path, None)
        self.unsent.pop(item.path, None)
        if last:
            self._arrived(last, progress)
        return item

    def _parts(self, timeout_s: float) -> list[list[str]]:
        """The names for each of several streams; none if one is to bring all that it finds."""
        self.listed.clear()
        if self.streams.count == 1:
            return []
        files = self._listing(timeout_s)
        parts = in_parts([file for file in files if file.is_sent], self.streams.count)
        if len(parts) > 1:
            for file in files:
                if not file.is_sent:
                    self._was_here(file)
            self.listed = {file.path for file in files}
        return parts

    def _listing(self, timeout_s: float) -> list[Item]:
        """What stands at the source now, and whether it differs here in size or time."""
        self.look.prepare()
        found = self.look.listing(self.target)
        return self.rsync.listing(self.target, timeout_s) if found is None else found

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
            self.before.append(self.pool.submit(self._read_before, self._portion))
        self._portion, self._portion_bytes = [], 0

    def _read_before(self, paths: Sequence[str]) -> list[FileDigest]:
        """What an attempt left that was killed: nobody may have flushed it, nor heard of it if that failed.

        It is read past the page cache, which takes no longer. But not small files: of 20,000 of 10 kB, 0.3 s from
        memory became 2 to 3 s from an SSD, of the 2 s that all takes if they are there, and 7 to 30 s with an fsync
        each. Of these each is written, which fails if its disk ever failed to take it, and `there` flushes them all at
        once: together that is what the fsync of each says, and memory is trusted after no less for what just arrived.
        """
        large = [self.unsent.get(path, 0) >= uncached.SMALL for path in paths]
        return [self._digest(path, cold=cold, write=not cold) for path, cold in zip(paths, large, strict=True)]

    def there(self, timeout_s: float) -> dict[str, FileDigest]:
        """What the sender has, by path, as it read it; nothing may have changed there since it was brought."""
        self.flushed = bool(self.unsent)
        # an attempt that was killed may not have flushed what it left
        flushing = self.pool.submit(sync_filesystem, self.target) if self.unsent else None
        sizes = self.unsent | {path: file.size for path, file in self.sent.items()}
        if self.unsent and 2 * sum(self.unsent.values()) >= sum(sizes.values()):
            # it reads all, which needs no list of names, and no other listing
            digests = self.rsync.digests(timeout_s)
            found = {file.path: file for file in digests if not is_partial(file.path)}
            changed = [p for p, f in found.items() if f.size != sizes.get(p) or f != self.sent.get(p, f)]
        else:
            listing = self._listing(timeout_s)
            names = [item.path for item in listing if item.path in self.unsent]
            read = {file.path: file for file in self.rsync.digests(timeout_s, names)} if names else {}
            known = self.sent | read
            changed = [item.path for item in listing if item.is_sent or item.path not in known]
            found = {item.path: known[item.path] for item in listing if item.path in known}
        if flushing:
            flushing.result()
        if gone := self.listed - found.keys():
            self.rsync.log(f"{len(gone)} files were gone before they were brought ({min(gone)!r}, ...)")
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
        found, bad, differing = [], [], []
        for path, want in there.items():
            have = self.here[path].result() if path in self.sent else before[path]
            found.append(have)
            if have != want:
                said = f"the sender read {want.size} bytes, {want.digest}"
                bad.append(f"{path!r}: on disk {have.size} bytes, {have.digest}; {said}")
                if path in self.sent:
                    (self.target / path).unlink()
                else:
                    differing.append(path)
                self.sent.pop(path, None)
                self.unsent.pop(path, None)
        if differing:
            # rsync gave them their names when they were what the sender had then: it may be the sender's that rotted
            aside = self._set_aside(differing)
            self.rsync.log(f"{len(differing)} files that were here before differ from the sender's, now in {aside}")
        return found, bad

    def clear(self, there: Mapping[str, FileDigest]) -> None:
        """Remove what rsync and redax have of files that are not whole yet, and links; nothing if the source is empty.

        Raises:
            Damaged: other files are gone at the source: what arrived of them may be the last copy, and is set aside.
                Tried again by itself, it would go on without them, and nobody would know.
        """
        scraps, lost = list[str](), list[str]()
        for path, is_scrap in self._surplus(there, ""):
            (scraps if is_scrap else lost).append(path)
        if lost:
            lost.sort()
            size = sum((self.target / path).stat().st_size for path in lost)
            aside = self._set_aside(lost)
            names = ", ".join(map(repr, lost[:5])) + (f", and {len(lost) - 5} more" if len(lost) > 5 else "")
            raise Damaged(
                f"{self.rsync.place}: {len(lost)} files that had arrived from there, {size} bytes, are gone there: "
                f"{names}; they may be the last copies, and are kept in {aside}: look at the disk there, and put them "
                "back if they belong to the run; straxflow retry goes on with what is there then"
            )
        if not there:
            return
        for path in scraps:
            if path.endswith("/"):
                shutil.rmtree(self.target / path)
            else:
                (self.target / path).unlink()
                self.flushed = False

    def _surplus(self, there: Mapping[str, FileDigest], folder: str) -> Iterator[tuple[str, bool]]:
        """Paths that the source does not have, and whether no data are lost with one; folders end with a slash."""
        with os.scandir(self.target / folder) as found:
            entries = list(found)
        for entry in entries:
            path = folder + entry.name
            if entry.is_dir(follow_symlinks=False):
                if entry.name == PARTIAL:
                    yield path + "/", True
                else:
                    yield from self._surplus(there, path + "/")
            elif path not in there:
                # rsync leaves out one dot of a name that begins with it
                of = _TEMP_FILE.match(entry.name)
                of_rsync = of and not {folder + of[1], f"{folder}.{of[1]}"}.isdisjoint(there.keys())
                is_file = entry.is_file(follow_symlinks=False)
                yield path, bool(of_rsync or _TEMP_FOLDER.match(folder) or not is_file)

    def _set_aside(self, paths: Sequence[str]) -> Path:
        """Move files out of here to where no attempt comes by, and nothing is removed."""
        aside = self.target.parent / differs_name(self.target.name)
        for path in paths:
            (aside / path).parent.mkdir(parents=True, exist_ok=True)
            rename_noreplace(self.target / path, aside / path)
        for emptied in {(self.target / path).parent for path in paths} - {self.target}:
            with suppress(OSError):
                emptied.rmdir()
        self.flushed = False
        try:
            fsync_tree(aside)
        except OSError as error:
            # a person is told of them in any case, which matters more
            self.rsync.log(f"{aside}: could not be flushed: {error}")
        return aside


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
    streams: int = 1,
    log: Log = lambda _: None,
    progress: Progress = lambda _: None,
    arrived: Arrived = lambda _: None,
) -> list[FileDigest]:
    """Bring all files of `source` to `target`, a private folder, flushed to disk and verified.

    Each file's xxh128 as the sender read it is compared with what is read here. Files that are the same in `target` or
    `link_dests` (folders of earlier attempts, same filesystem; only read, and linked) are read on both sides.
    `progress` gets the bytes arrived so far, `arrived` the path of a file that stands here now, not yet verified; what
    was there before is not told of, what comes anew is again. What `target` holds of an earlier attempt that differs,
    or is gone at the source, is moved to a hidden folder beside it. `streams` connections at most are used at once.

    Raises:
        Retryable: unreachable, connection lost `retries` times, out of time, disk full, source changing.
        StepFailed: no such source, no permission, or different digests twice.
        Damaged: the source holds links or special files, or has lost what arrived before.
        ConfigError: arguments that would undo the verification.
    """
    deadline = time.monotonic() + timeout_s
    target.mkdir(exist_ok=True)
    left = retries
    pool = ThreadPoolExecutor(2, thread_name_prefix="hash")
    try:
        with (
            shared_connection(source.host, ssh_options) as options,
            LastLook(source, rsync_args, options, idle_s, ours=options != [*ssh_options]) as look,
        ):
            first = Rsync(source, rsync_args, options, idle_s, log)
            work = _Pull(Streams(first, ssh_options, streams), look, target, pool, arrived)
            repaired = False
            while True:
                try:
                    work.transfer(link_dests, deadline - time.monotonic(), progress)
                    there = work.there(deadline - time.monotonic())
                except LostConnection as error:
                    look.close()
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
    work.clear(there)
    progress(sum(f.size for f in found))
    if not work.flushed:
        fsync_folders(target)
    return sorted(found)
