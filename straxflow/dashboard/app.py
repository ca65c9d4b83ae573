"""The page's web application: which requests are answered, and how little can go wrong with them."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl

from straxflow import summaries
from straxflow.config import LIVE
from straxflow.dashboard import logs
from straxflow.dashboard.page import Page
from straxflow.reports.documents import STATES

log = logging.getLogger(__name__)

LONGEST = 300
"""Of a path or a query, characters."""
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})
SCRIPTS = ("app", "chart", "dom", "format", "monitor", "overview", "parts", "run")
STATIC = {
    "/": ("index.html", "text/html; charset=utf-8"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8") for name in SCRIPTS},
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
_RUN, _NAME, _ATTEMPT = r"[A-Za-z0-9_]{1,100}", r"[A-Za-z][A-Za-z0-9_]{0,99}", r"[A-Za-z0-9_-]{1,150}"
# no wildcards: the database would have to try them on every run
_MODE = re.compile(r"[^\x00-\x1f\x7f*?]{1,100}")

StartResponse = Callable[..., Any]


@dataclass(frozen=True)
class Answer:
    """A response."""

    body: bytes
    kind: str = "application/json"
    status: str = "200 OK"
    extra: tuple[tuple[str, str], ...] = ()


class Refused(Exception):
    """A request that is not answered; the message goes to the browser."""

    def __init__(self, status: str, message: str, *extra: tuple[str, str]) -> None:
        super().__init__(message)
        self.status = status
        self.extra = extra


class App:
    """The WSGI application."""

    def __init__(self, page: Page, hosts: Iterable[str] = ()) -> None:
        self._page = page
        self._hosts = LOOPBACK | {host.lower() for host in (*hosts, *page.config.dashboard.hosts)}
        folder = files("straxflow.dashboard") / "static"
        self._static = {path: Answer((folder / name).read_bytes(), kind) for path, (name, kind) in STATIC.items()}
        self._routes: list[tuple[re.Pattern[str], Callable[..., Answer]]] = [
            (re.compile(r"/api/status"), self._status),
            (re.compile(r"/api/runs"), self._runs),
            (re.compile(rf"/api/run/({_RUN})"), self._run),
            (re.compile(rf"/api/plot/({_RUN})/({_NAME})"), self._plot),
            (re.compile(rf"/api/log/({_RUN})/({_NAME})/({_ATTEMPT})"), self._log),
        ]

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request; never with a traceback."""
        try:
            answer = self._answer(environ)
        except Refused as error:
            answer = _json({"error": str(error)}, error.status, error.extra)
        except Exception:
            log.exception("request %.200r failed", environ.get("PATH_INFO"))
            answer = _json({"error": "the page failed; its log says why"}, "500 Internal Server Error")
        headers = {**SECURITY, "Content-Type": answer.kind, **dict(answer.extra)}
        body, status = answer.body, answer.status
        if status.startswith("200"):
            tag = f'W/"{hashlib.sha256(body).hexdigest()[:20]}"'
            headers["ETag"] = tag
            headers["Vary"] = "Accept-Encoding"
            if environ.get("HTTP_IF_NONE_MATCH") == tag:
                body, status = b"", "304 Not Modified"
            elif len(body) > 1000 and "gzip" in environ.get("HTTP_ACCEPT_ENCODING", ""):
                body = gzip.compress(body, 3)
                headers["Content-Encoding"] = "gzip"
        headers["Content-Length"] = str(len(body))
        start_response(status, list(headers.items()))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _answer(self, environ: dict[str, Any]) -> Answer:
        self._guard(environ)
        path, query = _path(environ), _query(environ)
        if path in self._static:
            return self._static[path]
        for pattern, handler in self._routes:
            if match := pattern.fullmatch(path):
                return handler(*match.groups(), **query) if handler == self._runs else handler(*match.groups())
        raise Refused("404 Not Found", "there is nothing of that name")

    def _guard(self, environ: dict[str, Any]) -> None:
        """Only what a browser sends to this page on purpose."""
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            raise Refused("405 Method Not Allowed", "this page only shows things", ("Allow", "GET, HEAD"))
        # a foreign name for this address (DNS rebinding) would let other sites' scripts read the page
        host = re.fullmatch(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(:\d+)?", environ.get("HTTP_HOST", "").lower())
        if host is None or host[1] not in self._hosts:
            raise Refused(
                "421 Misdirected Request", "this host name is not served here; it may be added to dashboard.hosts"
            )
        if environ.get("CONTENT_LENGTH", "0") not in ("", "0") or "HTTP_TRANSFER_ENCODING" in environ:
            raise Refused("413 Content Too Large", "a request has no body here")
        if max(len(environ.get("PATH_INFO", "")), len(environ.get("QUERY_STRING", ""))) > LONGEST:
            raise Refused("414 URI Too Long", f"longer than {LONGEST} characters")

    def _status(self) -> Answer:
        return _json(self._page.overview())

    def _runs(self, state: str | None = None, mode: str | None = None, made: str | None = None) -> Answer:
        if state is not None and state not in STATES:
            raise Refused("400 Bad Request", f"state: one of {', '.join(STATES)}")
        if mode is not None and not _MODE.fullmatch(mode):
            raise Refused("400 Bad Request", "mode: no such mode")
        return _json(self._page.runs(state, mode))

    def _run(self, run: str) -> Answer:
        found = self._page.run(run)
        if found.value is None and found.made is None:
            raise Refused("503 Service Unavailable", found.problem or "it is still being read")
        if found.value is None:
            raise Refused("404 Not Found", f"there is no run {run}")
        return _json(found.value)

    def _plot(self, run: str, product: str) -> Answer:
        found = self._page.plot(run, product)
        if found is None:
            raise Refused("404 Not Found", f"there is no plot of {product} of run {run}")
        kind, picture = found
        # opened by itself instead of in the page, it still can do nothing
        policy = "default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'"
        return Answer(picture, summaries.KINDS[kind], extra=(("Content-Security-Policy", policy),))

    def _log(self, run: str, product: str, name: str) -> Answer:
        known = {LIVE, *self._page.config.products}
        attempt = logs.find(self._page.state, run, product, name) if product in known else None
        if attempt is None:
            raise Refused("404 Not Found", f"run {run} has no such attempt")
        try:
            words = logs.tail(self._page.state, attempt)
        except OSError:
            raise Refused("404 Not Found", "its log is not there, or not a plain file in the logs folder") from None
        return _json({"log": attempt.log, "text": words})


def _path(environ: dict[str, Any]) -> str:
    path: str = environ.get("PATH_INFO", "")
    if not path.isascii() or "//" in path or ".." in path:
        raise Refused("404 Not Found", "there is nothing of that name")
    return path


def _query(environ: dict[str, Any]) -> dict[str, str]:
    try:
        pairs = parse_qsl(environ.get("QUERY_STRING", ""), strict_parsing=False, max_num_fields=4, errors="strict")
    except (ValueError, UnicodeError):
        raise Refused("400 Bad Request", "the query is not readable") from None
    query = dict(pairs)
    if len(query) != len(pairs) or set(query) - {"state", "mode", "made"}:
        raise Refused("400 Bad Request", "the query may have state, mode and made, each once")
    return query


def _json(content: Any, status: str = "200 OK", extra: tuple[tuple[str, str], ...] = ()) -> Answer:
    body = json.dumps(content, default=_plain, separators=(",", ":"), allow_nan=False).encode()
    return Answer(body, status=status, extra=extra)


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else str(value)
