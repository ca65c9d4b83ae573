"""Commands on another host, over ssh, and what its failures mean."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import os
import re
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from straxflow.errors import ConfigError, Retryable, StraxflowError
from straxflow.transport.child import running

CONNECT_S = 20
CONNECTIONS = "STRAXFLOW_CONNECTIONS"
"""A folder of this invocation where connections stay open from one job to the next."""
_HOST = re.compile(r"([A-Za-z0-9_][\w.-]*@)?([A-Za-z0-9][\w.-]*|\[[0-9A-Fa-f:%\w]+\])")
# "flags" of x86, "Features" of ARM
_AES = re.compile(r"^(flags|Features)\s*:.*\baes\b", re.MULTILINE)
# ssh's own ciphers in another order: where the processor knows AES, data come 1.2 times as fast as with ssh's first
_CIPHERS = (
    "aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr"
)
# a connection that nobody uses any more ends by itself after this: that of a killed process, and one that is kept
_PERSIST_S, _KEPT_S = 10, 60
# ControlMaster, ControlPath, ControlPersist: how connections are shared
_CONTROL = "Control"
# unix sockets' paths are short, and ssh adds to the name while it makes one
_SOCKET_PATH_MAX = 80


class LostConnection(Retryable):
    """Not reached, or the connection broke; what arrived can be used by the next attempt."""


@dataclass(frozen=True)
class Result:
    """Exit code and output of a remote command."""

    code: int
    out: bytes
    err: str


def check_host(host: str) -> None:
    """Raise ConfigError unless `host` is a plain [user@]host or ssh alias."""
    if not _HOST.fullmatch(host):
        raise ConfigError(f"{host!r}: not a host name for ssh ([user@]host)")


def command(options: Sequence[str]) -> list[str]:
    """The ssh command without host; the site's options come first: ssh takes the first value of each."""
    own: dict[str, str | int] = {
        "ConnectTimeout": CONNECT_S,
        "ServerAliveInterval": 10,
        "ServerAliveCountMax": 3,
    }
    if _knows_aes():
        own["Ciphers"] = _CIPHERS
    # never to be overridden: it must not wait for a person
    argv = ["ssh", "-o", "BatchMode=yes", *options]
    for key, value in own.items():
        argv += ["-o", f"{key}={value}"]
    return argv


def command_on(host: str, options: Sequence[str], argv: Sequence[str]) -> list[str]:
    """The ssh command that runs `argv` on a host (a POSIX login shell there); each argument arrives as it is."""
    check_host(host)
    return [*command(options), "--", host, shlex.join(argv)]


@cache
def _knows_aes() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return _AES.search(flags) is not None


@contextmanager
def shared_connection(host: str | None, options: Sequence[str]) -> Iterator[list[str]]:
    """Options with which all ssh commands in the block share one connection, made on demand; see `kept_connection`.

    Outside of an invocation it is closed at the end of the block.
    """
    if not host or _says_how(options) or _kept() is not None:
        with kept_connection(host, options) as kept:
            yield kept
        return
    with tempfile.TemporaryDirectory(prefix="straxflow-") as folder:
        socket = Path(folder, "ssh")
        try:
            yield _over(socket, options, _PERSIST_S)
        finally:
            _close(socket)


@contextmanager
def kept_connection(host: str | None, options: Sequence[str]) -> Iterator[list[str]]:
    """Options with which the ssh commands in the block use a connection that this invocation keeps for all its jobs.

    Each log-in costs 0.2 to 1 s. Two blocks at the same time have one each, for one is no faster than one processor
    encrypts. A connection that breaks is replaced by the next command's own. Outside of an invocation, and where the
    site's options say how to share connections, they are yielded as they are.
    """
    folder = _kept()
    if not host or _says_how(options) or folder is None:
        yield [*options]
        return
    with _free_place(folder, host, options) as socket:
        yield _over(socket, options, _KEPT_S)


def _says_how(options: Sequence[str]) -> bool:
    return _CONTROL.lower() in " ".join(options).lower()


def _kept() -> Path | None:
    folder = os.environ.get(CONNECTIONS)
    return Path(folder) if folder and Path(folder).is_dir() else None


def _over(socket: Path, options: Sequence[str], persist_s: int) -> list[str]:
    if len(str(socket)) > _SOCKET_PATH_MAX:
        # nor by the user's own configuration, whose connections may end with the first of their users
        return [*options, "-o", f"{_CONTROL}Path=none"]
    own = {f"{_CONTROL}Master": "auto", f"{_CONTROL}Path": str(socket), f"{_CONTROL}Persist": str(persist_s)}
    return [*options, *(word for key, value in own.items() for word in ("-o", f"{key}={value}"))]


@contextmanager
def _free_place(folder: Path, host: str, options: Sequence[str]) -> Iterator[Path]:
    """The socket of a connection to a host that no other block uses now; a dead user's lock is freed by the system."""
    kind = hashlib.sha256("\0".join([host, *options]).encode()).hexdigest()[:8]
    for number in itertools.count():
        with (folder / f"{kind}.{number}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield folder / f"{kind}.{number}.ssh"
            return


def close_connections(folder: Path) -> None:
    """Close the connections that jobs left open there."""
    for socket in folder.glob("*.ssh"):
        _close(socket)


def _close(socket: Path) -> None:
    if socket.exists():
        argv = ["ssh", "-F", "none", "-o", f"ControlPath={socket}", "-O", "exit", "--", "any"]
        subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=CONNECT_S, check=False)


def explain(host: str | None, stderr: str) -> StraxflowError | None:
    """What ssh's own messages mean; None if there are none of them."""
    last = next((line for line in reversed(stderr.splitlines()) if line.strip()), "")
    known: list[tuple[str, type[Retryable], str]] = [
        (
            r"Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED|No matching host key",
            Retryable,
            "its host key is not known, or has changed: ask its admin, then update known_hosts",
        ),
        (
            r"^[^\n]*Permission denied \([a-z,-]+\)|Too many authentication failures",
            Retryable,
            "it refused our key: check user, key and authorized_keys",
        ),
        (
            r"no matching cipher found",
            Retryable,
            "it knows no cipher of ours: name one in its ssh_options (-c NAME)",
        ),
        (
            r"Could not resolve hostname|Name or service not known",
            Retryable,
            "no such host name: check the name in the configuration, or the name server",
        ),
        (
            r"Connection refused|No route to host|Network is unreachable|Connection timed out"
            r"|Operation timed out|banner exchange",
            LostConnection,
            "unreachable",
        ),
        (
            r"Timeout, server .* not responding|Connection reset|Connection closed|Broken pipe"
            r"|client_loop|Connection to .* closed|kex_exchange_identification",
            LostConnection,
            "connection lost",
        ),
    ]
    for pattern, kind, meaning in known:
        if found := re.search(pattern, stderr, re.MULTILINE):
            line = next(line for line in stderr.splitlines() if found[0].splitlines()[0] in line)
            return kind(f"ssh {host}: {meaning} ({line.strip() or last})")
    return None


def run(host: str, options: Sequence[str], argv: Sequence[str], *, timeout_s: float = 300) -> Result:
    """Run a command on a host (a POSIX login shell there); each argument arrives as it is.

    Raises:
        Retryable: not reachable, refused, or out of time. A command's own failure is in the result.
    """
    with tempfile.TemporaryFile() as err:
        with (
            kept_connection(host, options) as kept,
            running(command_on(host, kept, argv), timeout_s, err) as child,
        ):
            assert child.process.stdout
            out = child.process.stdout.read()
        err.seek(0)
        text = err.read().decode(errors="replace")
    code = child.process.returncode
    if child.timed_out:
        raise LostConnection(f"ssh {host}: {argv[0]} took more than {timeout_s:g} s and was ended")
    if code == 255 or code < 0:
        raise explain(host, text) or LostConnection(f"ssh {host}: failed (exit {code}): {text.strip()[-300:]}")
    return Result(code, out, text)


def round_trip(host: str, options: Sequence[str], times: int = 5) -> float:
    """Seconds that a word takes to a host and back, the shortest of some; the log-in apart.

    Raises:
        Retryable: not reachable, refused, or no answer in time.
    """
    argv = command_on(host, options, ["sh", "-c", "while read -r word; do echo; done"])
    found = []
    with tempfile.TemporaryFile() as err:
        with running(argv, CONNECT_S, err, stdin=subprocess.PIPE) as child:
            assert child.process.stdin and child.process.stdout
            with contextlib.suppress(BrokenPipeError), child.process.stdin as words:
                for _ in range(times + 1):
                    began = time.monotonic()
                    words.write(b"word\n")
                    words.flush()
                    if child.process.stdout.readline():
                        found.append(time.monotonic() - began)
        err.seek(0)
        text = err.read().decode(errors="replace")
    if len(found) <= times:
        raise explain(host, text) or LostConnection(f"ssh {host}: no answer: {text.strip()[-300:]}")
    # the first one waits for the log-in
    return min(found[1:])
