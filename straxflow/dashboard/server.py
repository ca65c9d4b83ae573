"""The page's server: waitress, with bounds that fit a page for a few people."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from socket import AF_INET, AF_INET6
from socket import create_server as socket_on
from socket import socket as Socket
from threading import Thread
from typing import Any

from waitress.server import create_server
from waitress.wasyncore import close_all, loop

from straxflow.cli.site import Site
from straxflow.dashboard.app import App
from straxflow.dashboard.page import Page
from straxflow.errors import StraxflowError

LOOK_S = 0.5
"""How soon a server that is to be closed notices, seconds."""
EVERYWHERE = ("0.0.0.0", "::")
LIMITS = {
    "threads": 8,
    "connection_limit": 100,
    "channel_timeout": 30,
    "cleanup_interval": 10,
    "max_request_header_size": 16 * 1024,
    "max_request_body_size": 1024,
    "log_socket_errors": False,
    "clear_untrusted_proxy_headers": True,
    "ident": None,
}


class Serving:
    """A server that listens; `run` answers until `close`."""

    def __init__(self, page: Page, app: App, socket: Socket, name: str) -> None:
        self.page = page
        self.url = f"http://{name}:{socket.getsockname()[1]}/"
        self._channels: dict[int, Any] = {}
        self._closed = False
        self._server = create_server(app, map=self._channels, sockets=[socket], **LIMITS)

    def run(self) -> None:
        """Answer requests until interrupted, or closed by another thread."""
        try:
            while not self._closed:
                # not the server's own loop: nothing but an interrupt ends that without a race
                loop(timeout=LOOK_S, map=self._channels, count=1)
        except KeyboardInterrupt:
            pass
        finally:
            self._server.task_dispatcher.shutdown(timeout=1)
            close_all(self._channels)
            self.page.close()

    def close(self) -> None:
        """Make `run` end, soon."""
        self._closed = True


def listen(site: Site, host: str, port: int) -> Serving:
    """Listen on a port (0: any that is free).

    Raises:
        StraxflowError: if that is not possible.
    """
    page = Page(site)
    app = App(page, hosts=[] if host in EVERYWHERE else [host])
    family = AF_INET6 if ":" in host else AF_INET
    try:
        socket = socket_on((host, port), family=family)
    except OSError as error:
        raise StraxflowError(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another with --host and --port"
        ) from None
    return Serving(page, app, socket, f"[{host}]" if ":" in host else host)


@contextmanager
def in_background(site: Site, host: str = "127.0.0.1", port: int = 0) -> Iterator[Serving]:
    """Serve from a thread, for tests and for the picture in the documentation."""
    serving = listen(site, host, port)
    thread = Thread(target=serving.run, daemon=True)
    thread.start()
    try:
        yield serving
    finally:
        serving.close()
        thread.join(10)
