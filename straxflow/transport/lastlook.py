"""The last look at a transfer's source: a shell that waits there for the word, so that it costs one round trip."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from straxflow.transport import ssh
from straxflow.transport.child import Child, running
from straxflow.transport.rsync import Item, Place, is_partial

# with others, rsync may leave out files, or see more of them
_PLAIN = re.compile(r"-[artpogvzW]+|--(archive|bwlimit|compress|compress-choice|whole-file|verbose)(=.*)?")
# a word that comes, rather than the end of the connection; the last line tells that nothing went wrong
_SCRIPT = r"""read -r word && cd -- "$1" && LC_ALL=C find . ! -type d -printf '%y %s %T@ %P\0' && printf whole"""
_FILE = re.compile(rb"f (\d+) (\d+)(?:\.\d+)? (.+)", re.DOTALL)
# how rsync writes what goes over, and what does not
_SENT, _NOT_SENT = ">f", ".f"


class LastLook:
    """What stands at the source when all has come, asked of a shell that was started before.

    A second rsync tells it too, and is what a caller asks where this one has no answer: a host that lets nothing but
    rsync in, a `find` that is not GNU's, options that leave files out. But it takes five round trips more.

    `ours`: how connections are shared is not the site's to say. By its word one may not end while the shell waits,
    which would then wait for the end of rsync, and rsync for the shell.
    """

    def __init__(
        self,
        place: Place,
        rsync_args: Sequence[str],
        ssh_options: Sequence[str],
        timeout_s: float,
        *,
        ours: bool = True,
    ) -> None:
        self.place, self.ssh_options, self.timeout_s = place, ssh_options, timeout_s
        self._able = ours and all(map(_PLAIN.fullmatch, rsync_args))
        self._child: Child | None = None
        self._stack = ExitStack()

    def __enter__(self) -> LastLook:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def prepare(self) -> None:
        """Start the shell, once; a connection must stand that it can share, or it would make its own."""
        if self._able and self._child is None and self.place.host:
            argv = ssh.command_on(self.place.host, self.ssh_options, ["sh", "-c", _SCRIPT, "sh", self.place.path])
            # what it says is rsync's to say, if that fails too
            waiting = running(argv, 7 * 86400, subprocess.DEVNULL, stdin=subprocess.PIPE)
            self._child = self._stack.enter_context(waiting)

    def listing(self, target: Path) -> list[Item] | None:
        """All files of the source, as `Rsync.listing` has them; None if this can't tell."""
        if self._child is None:
            return None
        try:
            out = self._answer(self._child)
        finally:
            self.close()
        *lines, end = out.split(b"\0")
        found = _items(lines, target) if end == b"whole" else None
        # it may take as long to have no answer another time
        self._able = found is not None
        return found

    def _answer(self, child: Child) -> bytes:
        try:
            return child.process.communicate(b"look\n", timeout=self.timeout_s)[0]
        except subprocess.TimeoutExpired:
            return b""

    def close(self) -> None:
        """End the shell."""
        if self._child:
            child, self._child = self._child, None
            if child.process.returncode is None:
                child.kill()
            if child.process.stdin:
                with suppress(BrokenPipeError):
                    child.process.stdin.close()
            self._stack.close()


def _items(lines: Iterable[bytes], target: Path) -> list[Item] | None:
    """The lines as items; None if there is anything but regular files, of which rsync tells what it is."""
    items = []
    for line in lines:
        if not (found := _FILE.fullmatch(line)):
            return None
        size, seconds, path = int(found[1]), int(found[2]), found[3].decode("utf-8", "surrogateescape")
        if not is_partial(path):
            items.append(Item(_NOT_SENT if _is_same(target / path, size, seconds) else _SENT, "", size, path))
    return items


def _is_same(file: Path, size: int, seconds: int) -> bool:
    """Whether rsync would not send it: it compares whole seconds, as not every filesystem keeps more."""
    try:
        found = file.lstat()
    except OSError:
        return False
    return found.st_size == size and found.st_mtime_ns // 10**9 == seconds
