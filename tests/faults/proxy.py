"""A TCP proxy on loopback, in which a connection can be cut, fall silent, or have something happen at a word."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from straxflow.lab.sshd import Sshd

Watch = Callable[[bytes], bool]
"""Called with what a client says, before the server hears it; False cuts the connection instead."""


class Proxy:
    """Forwards what comes to `port` to a server's own port; a context manager.

    `cuts`: after how many bytes from the server the first, second, ... connection is cut; the later ones are not.
    `silent_after`: after how many bytes every connection falls silent: it stays open, and nothing comes any more.
    """

    def __init__(
        self, server_port: int, cuts: Sequence[int] = (), silent_after: int | None = None, watch: Watch | None = None
    ) -> None:
        self.server_port = server_port
        self.cuts = list(cuts)
        self.silent_after = silent_after
        self.watch = watch
        self.sent: list[int] = []
        """Bytes that came from the server, by connection."""
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def ssh_options(self, sshd: Sshd) -> list[str]:
        """Options by which ssh comes to an sshd through here, and knows it."""
        port = str(sshd.port)
        through = [str(self.port) if word == port else word for word in sshd.ssh_options]
        return [*through, "-o", f"HostKeyAlias=[127.0.0.1]:{port}"]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self.server_port))
                except OSError:
                    client.close()
                    continue
                self._open += [client, server]
                number = len(self.sent)
                self.sent.append(0)
                for way in (self._up, self._down):
                    threading.Thread(target=way, args=(client, server, number), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError):
            while words := client.recv(1 << 16):
                if self.watch and not self.watch(words):
                    break
                server.sendall(words)
        self._cut(client, server)

    def _down(self, client: socket.socket, server: socket.socket, number: int) -> None:
        most = self.cuts[number] if number < len(self.cuts) else None
        with contextlib.suppress(OSError):
            while words := server.recv(1 << 14):
                if self.silent_after is not None and self.sent[number] + len(words) > self.silent_after:
                    client.sendall(words[: self.silent_after - self.sent[number]])
                    self.sent[number] = self.silent_after
                    return  # both ends stay open
                if most is not None and self.sent[number] + len(words) > most:
                    client.sendall(words[: most - self.sent[number]])
                    break
                client.sendall(words)
                self.sent[number] += len(words)
        self._cut(client, server)

    @staticmethod
    def _cut(*ends: socket.socket) -> None:
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
