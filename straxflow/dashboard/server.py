"""The page's server: waitress, with bounds that fit a page for a few people."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread

from waitress.server import create_server

from straxflow.cli.site import Site
from straxflow.dashboard.app import App
from straxflow.dashboard.page import Page
from straxflow.errors import StraxflowError

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


@dataclass(frozen=True)
class Serving:
    """A server that listens; `run` answers until `close`."""

    page: Page
    server: object
    url: str

    def run(self) -> None:
        """Answer requests until interrupted."""
        self.server.run()  # type: ignore[attr-defined]

    def close(self) -> None:
        """Stop listening."""
        self.server.close()  # type: ignore[attr-defined]
        self.page.close()


def listen(site: Site, host: str, port: int) -> Serving:
    """Listen on a port (0: any that is free).

    Raises:
        StraxflowError: if that is not possible.
    """
    page = Page(site)
    app = App(page, hosts=[] if host in ("0.0.0.0", "::") else [host])
    try:
        server = create_server(app, host=host, port=port, **LIMITS)
    except OSError as error:
        raise StraxflowError(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another with --host and --port"
        ) from None
    name = f"[{host}]" if ":" in host else host
    return Serving(page, server, f"http://{name}:{server.effective_port}/")


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
        thread.join(5)
