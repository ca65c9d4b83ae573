"""A run database that refuses some commands, or takes its time: a proxy before the real one, at the level of its wire
protocol, since the stand-in knows no users."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import bson

WRITES = ("insert", "update", "delete", "findAndModify", "createIndexes", "create", "drop")
NOT_AUTHORIZED = (13, "Unauthorized", "not authorized on runs to execute this command")
AUTHENTICATION_FAILED = (18, "AuthenticationFailed", "Authentication failed.")

_HEADER = struct.Struct("<iiii")
_OP_MSG = 2013


class Refusing:
    """Forwards what comes to `port`, but answers the commands of `refused` with their errors; each answer comes after
    `delay_s`. A context manager."""

    def __init__(self, port: int, refused: Mapping[str, tuple[int, str, str]], delay_s: float = 0) -> None:
        self._server, self._refused, self._delay = port, refused, delay_s
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"mongodb://127.0.0.1:{self._listener.getsockname()[1]}/"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._server)) as server:
            while message := _message(client):
                command = _command(message)
                self.asked.append(command)
                time.sleep(self._delay)
                if error := self._refused.get(command):
                    client.sendall(_error(message, *error))
                    continue
                server.sendall(message)
                client.sendall(_message(server))


def _message(source: socket.socket) -> bytes:
    head = _exactly(source, 4)
    return head + _exactly(source, struct.unpack("<i", head)[0] - 4) if head else b""


def _exactly(source: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = source.recv(size - len(found))
        if not more:
            return b""
        found += more
    return found


def _command(message: bytes) -> str:
    """The name of a command: the first key of the first section; the oldest way to say hello has none."""
    _, _, _, code = _HEADER.unpack_from(message)
    return (
        str(next(iter(bson.decode(message[21 : 21 + struct.unpack_from("<i", message, 21)[0]]))))
        if code == _OP_MSG
        else ""
    )


def _error(message: bytes, code: int, name: str, words: str) -> bytes:
    body = bson.encode({"ok": 0.0, "code": code, "codeName": name, "errmsg": words})
    length = _HEADER.size + 5 + len(body)
    return _HEADER.pack(length, 1, _HEADER.unpack_from(message)[1], _OP_MSG) + b"\0\0\0\0\0" + body
