"""`straxflow dashboard`: the status page."""

from __future__ import annotations

import argparse
import ipaddress

from straxflow.cli.site import open_site
from straxflow.dashboard.server import listen

DESCRIPTION = (
    "Serves a status page, read only: the runs and their steps now, the queue, who works, throughput, failures with\n"
    "their logs, disks. On loopback unless told otherwise; from elsewhere: ssh -L 8080:localhost:8080 THIS_HOST."
)
EXAMPLES = (
    "straxflow --profile stoomboot dashboard",
    "straxflow --profile stoomboot dashboard --port 8081",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="address to listen on (default: %(default)s)"
    )
    parser.add_argument("--port", type=_port, default=8080, help="port to listen on (default: %(default)s; 0: any)")


def run(arguments: argparse.Namespace) -> int:
    """Serve until interrupted."""
    serving = listen(open_site(arguments), arguments.host, arguments.port)
    print(f"the status page is at {serving.url}   (Ctrl-C ends it)", flush=True)
    if not _is_loopback(arguments.host):
        print(
            "anybody who reaches this address can read it; see docs/dashboard.md for a proxy with a password",
            flush=True,
        )
    serving.run()
    return 0


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _port(word: str) -> int:
    if not word.isdigit() or int(word) > 65535:
        raise argparse.ArgumentTypeError(f"{word!r} is no port number")
    return int(word)
