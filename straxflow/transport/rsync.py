"""rsync: command lines, its output, and what its exit codes mean."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from straxflow.digests import FileDigest
from straxflow.errors import ConfigError, Damaged, Retryable, StepFailed, StraxflowError
from straxflow.transport import ssh
from straxflow.transport.child import Child, running

PARTIAL = ".rsync-partial"
_NAMES = 2000
_EXPANDED = re.compile(r"[*?\[\]\\\n\r\0]")
Log = Callable[[str], None]

# each would break what this rests on: temp file and rename, sender's digests, the whole source
_FORBIDDEN = re.compile(
    r"--(inplace|append|remove-|delete|del$|dry-run|out-format|log-format|checksum-choice|cc=|size-only|ignore-"
    r"|existing|files-from|from0|max-size|min-size|write-batch|only-write|partial|temp-dir|delay-updates|backup"
    r"|compare-dest|copy-dest|link-dest|rsh|stop-|time-limit|list-only|quiet|info|msgs2|daemon|server|suffix)"
    r"|--rsync-path(?!=[\w/.+-]+\Z)|-[a-zA-Z]*[neTbqI]"
)


@dataclass(frozen=True)
class Place:
    """An absolute folder, on `host` (over ssh) or here."""

    path: str
    host: str | None = None

    def spec(self) -> str:
        """As rsync takes it: the folder's content.

        Raises:
            ConfigError: not absolute, or with characters that rsync would expand on the other side.
        """
        path = self.path
        if not path.startswith("/") or _EXPANDED.search(path):
            raise ConfigError(f"{path!r}: must be an absolute path without * ? [ ] \\ or line breaks")
        if self.host:
            ssh.check_host(self.host)
        return (f"{self.host}:" if self.host else "") + path.rstrip("/") + "/"

    def __str__(self) -> str:
        return f"{self.host}:{self.path}" if self.host else self.path


@dataclass(frozen=True)
class Item:
    """A line of rsync: what happens to a file ('>f..t......'), its sender's digest if known, size, path."""

    change: str
    digest: str
    size: int
    path: str

    @property
    def is_file(self) -> bool:
        """A regular file."""
        return self.change[1:2] == "f"

    @property
    def is_sent(self) -> bool:
        """Its content goes over (rather than being there already)."""
        return self.change[:1] in "<>"

    def as_digest(self) -> FileDigest:
        """With the sender's digest."""
        return FileDigest(self.path, self.size, self.digest)


FORMAT = "=%i %C %l %n"
_LINE = re.compile(rb"=(.{11}) ([0-9a-f]{32}| {32}) (\d+) (.*)", re.DOTALL)


def parse_line(line: bytes) -> Item | None:
    r"""Read a line of `FORMAT`; None if it is some other message. rsync writes odd bytes as \#ooo."""
    found = _LINE.fullmatch(line.removesuffix(b"\n"))
    if not found:
        return None
    change, digest, size, path = found.groups()
    if b"\\#" in path:
        path = re.sub(rb"\\#([0-3][0-7]{2})", lambda m: bytes([int(m[1], 8)]), path)
    name = path.decode("utf-8", "surrogateescape")
    return Item(change.decode().strip(), digest.decode().strip(), int(size), name)


def is_partial(path: str) -> bool:
    """Whether it is what a broken transfer left of a file: never one of the run."""
    return PARTIAL in path.split("/")[:-1]


def check_args(args: Sequence[str]) -> None:
    """Raise ConfigError at rsync arguments that would undo the verified transfer."""
    for arg in args:
        if not arg.startswith("-") or arg == "--" or _FORBIDDEN.match(arg):
            raise ConfigError(f"rsync argument {arg!r}: not possible in a verified transfer; remove it")


def explain(place: Place, code: int, stderr: str) -> StraxflowError:
    """An exit code and the messages with it, as an error that says what to do."""
    first = next((line for line in stderr.splitlines() if line.startswith("rsync")), "").strip()
    detail = f" ({first or stderr.strip()[-300:]})"
    if (no_file := re.search(r"(link_stat|change_dir|opendir).*No such file", stderr)) and code == 23:
        return StepFailed(f"{place}: no such source{detail}: check the path, and that the disk is mounted there")
    if "No space left on device" in stderr or "Disk quota exceeded" in stderr:
        return Retryable(f"{place}: disk full or over quota at the destination{detail}: free some space")
    if not no_file and (found := ssh.explain(place.host, stderr)) and place.host and code != 23:
        return found
    if code == 23 and "Permission denied" in stderr:
        return StepFailed(f"{place}: a file or folder may not be read or written{detail}: check its permissions")
    if "command not found" in stderr or code == 127:
        return Retryable(f"{place}: rsync is not installed there{detail}")
    meanings: dict[int, tuple[type[StraxflowError], str]] = {
        10: (ssh.LostConnection, "connection lost"),
        12: (ssh.LostConnection, "connection lost"),
        20: (ssh.LostConnection, "rsync was interrupted"),
        24: (ssh.LostConnection, "files vanished at the source during the transfer: not complete"),
        30: (ssh.LostConnection, "time-out: nothing came any more"),
        35: (ssh.LostConnection, "time-out while connecting"),
        255: (ssh.LostConnection, "ssh failed"),
        11: (StepFailed, "reading or writing failed"),
        23: (StepFailed, "some files could not be transferred"),
    }
    if code < 0:
        return ssh.LostConnection(f"{place}: rsync was killed by signal {-code}")
    kind, meaning = meanings.get(code, (StepFailed, f"rsync failed, exit {code}"))
    return kind(f"{place}: {meaning}{detail}")


@dataclass
class Rsync:
    """How to run rsync between here and `place`."""

    place: Place
    args: Sequence[str] = ("-a",)
    ssh_options: Sequence[str] = ()
    idle_s: int = 120
    log: Log = field(default=lambda _: None)
    _child: Child | None = field(default=None, init=False, repr=False)
    _stopped: bool = field(default=False, init=False, repr=False)

    def stop(self) -> None:
        """End what runs now, from another thread; nothing runs any more."""
        self._stopped = True
        if child := self._child:
            child.kill()

    def _argv(self, options: Sequence[str], extra: Sequence[str], source: str, target: str) -> list[str]:
        check_args(self.args)
        argv = ["rsync", *self.args, "-rt", "-s", "-ii", "--checksum-choice=xxh128", f"--out-format={FORMAT}"]
        if self.place.host:
            # rsync splits this at blanks, and knows quotes, doubled inside
            parts = ("'" + p.replace("'", "''") + "'" for p in ssh.command(options))
            argv += ["-e", " ".join(parts)]
        return [*argv, *extra, "--", source, target]

    @contextmanager
    def _items(
        self, extra: Sequence[str], source: str, target: str, timeout_s: float, only: Iterable[str] | None
    ) -> Iterator[Iterator[Item]]:
        def lines() -> Iterator[Item]:
            assert child.process.stdout
            for line in child.process.stdout:
                item = parse_line(line)
                if item and item.change[1:2] in ("L", "D", "S"):
                    raise Damaged(f"{self.place}: {item.path!r} is a link or special file, not a regular one")
                if item:
                    yield item
                elif line.startswith(b"skipping non-regular file"):
                    raise Damaged(f"{self.place}: {line.decode(errors='replace').strip()}: data are plain files")
                else:
                    self.log(line.decode(errors="replace").rstrip())

        with (
            ssh.kept_connection(self.place.host, self.ssh_options) as options,
            tempfile.TemporaryFile() as err,
            tempfile.TemporaryFile() as names,
        ):
            if only is not None:
                # "./" protects names that start with '#' or ';', which rsync takes for comments
                names.write(b"".join(b"./" + p.encode("utf-8", "surrogateescape") + b"\0" for p in only))
                names.seek(0)
                extra = [*extra, "--files-from=-", "--from0"]
            argv = self._argv(options, extra, source, target)
            # ssh's options are the site's own affair: keys, jump hosts
            self.log("+ " + " ".join("ssh" if before == "-e" else word for before, word in pairwise(["", *argv])))
            with running(argv, timeout_s, err, stdin=names) as child:
                self._child = child
                if self._stopped:
                    child.kill()
                try:
                    yield lines()
                finally:
                    self._child = None
            err.seek(0)
            stderr = err.read().decode(errors="replace")
        if stderr:
            self.log(stderr.rstrip())
        if child.timed_out:
            raise ssh.LostConnection(f"{self.place}: rsync took more than {timeout_s:.0f} s and was ended")
        if child.process.returncode:
            raise explain(self.place, child.process.returncode, stderr)

    @contextmanager
    def pull(
        self, target: Path, link_dests: Sequence[Path], timeout_s: float, only: Sequence[str] | None = None
    ) -> Iterator[Iterator[Item]]:
        """Bring the place's content, or some files of it, here; items as they arrive (a rename may be still to come).

        Files to bring that are gone are passed over in silence.
        """
        extra = [f"--timeout={self.idle_s}", f"--partial-dir={PARTIAL}", "--no-D"]
        extra += [f"--link-dest={old}" for old in link_dests[:20]]
        if only is not None:
            # several at once must not give one folder its mode while others still write there
            extra += ["--ignore-missing-args", "--no-implied-dirs"]
        with self._items(extra, self.place.spec(), f"{target}/", timeout_s, only) as items:
            yield items

    def push(self, source: Path, name: str, only: Iterable[str], link_dests: Sequence[str], timeout_s: float) -> None:
        """Bring some files of a local folder to the place's folder `name`."""
        extra = [f"--timeout={self.idle_s}", f"--partial-dir={PARTIAL}"]
        extra += [f"--link-dest={old}" for old in link_dests[:20]]
        target = Place(f"{self.place.path.rstrip('/')}/{name}", self.place.host).spec()
        for portion in self.portions([*only]):
            with self._items(extra, f"{source}/", target, timeout_s, portion) as items:
                for _ in items:
                    pass

    def listing(self, target: Path, timeout_s: float) -> list[Item]:
        """All files of the place; `is_sent` if it differs here in size or time."""
        extra = ["-n", f"--timeout={self.idle_s}", f"--partial-dir={PARTIAL}", "--no-D"]
        with self._items(extra, self.place.spec(), f"{target}/", timeout_s, None) as items:
            return [item for item in items if item.is_file]

    def digests(self, timeout_s: float, only: Sequence[str] | None = None) -> list[FileDigest]:
        """Have the place's host read its files (all, or some) and say their xxh128."""
        if only is None:
            return self._digests(timeout_s, None)
        return [digest for names in self.portions(only) for digest in self._digests(timeout_s, names)]

    @staticmethod
    def portions(names: Sequence[str]) -> Iterator[Sequence[str]]:
        """So many names as one rsync is given: its time for them grows with their square."""
        return (names[at : at + _NAMES] for at in range(0, len(names), _NAMES))

    def _digests(self, timeout_s: float, only: Sequence[str] | None) -> list[FileDigest]:
        # compared with an empty folder, every file is listed and only the other side reads
        extra = ["-n", "-c", "--no-D"]
        with (
            tempfile.TemporaryDirectory() as empty,
            self._items(extra, self.place.spec(), f"{empty}/", timeout_s, only) as items,
        ):
            return [item.as_digest() for item in items if item.is_file]
