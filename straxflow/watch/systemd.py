"""What a watcher has to do with systemd: its unit, with the paths of this installation, and that it lives."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from pathlib import Path

from straxflow.config.load import ROOT
from straxflow.config.profile import Source

UNIT = """\
# straxflow's watcher of site {site}. For one user: ~/.config/systemd/user/{name}.service, then
#   systemctl --user daemon-reload && systemctl --user enable --now {name}
#   loginctl enable-linger            so that it runs without a login, also after a reboot
# For the whole machine: /etc/systemd/system/{name}.service, with a line User= below [Service].
[Unit]
Description=straxflow watch, site {site}, campaign {campaign}
Documentation=file:{root}/docs/unattended.md
Wants=network-online.target
After=network-online.target remote-fs.target
# never give up: what is in the way at the start (a disk, the network) may come later
StartLimitIntervalSec=0

[Service]
Type=notify
# it tells that it lives with each poll
WatchdogSec=10min
WorkingDirectory={root}
ExecStart={command}
Restart=always
RestartSec=15
# the watcher alone is asked to end, it tells its invocations; what is left after the time-out is killed,
# and the next start goes on from there
KillMode=mixed
TimeoutStopSec=15min

[Install]
WantedBy=default.target
"""


def tell_systemd(text: str) -> None:
    """Tell systemd something, e.g. READY=1, if it started this process and wants to know."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as talk:
            talk.settimeout(1)
            talk.sendto(text.encode(), "\0" + address[1:] if address.startswith("@") else address)


def command(source: Source, campaign: str) -> list[str]:
    """The command line of the watcher."""
    files = [word for file in source.given for word in ("--configfile", str(file))]
    others = [] if campaign == "online" else ["--campaign", campaign]
    program = Path(sys.executable).parent / "straxflow"
    return [str(program), "--profile", source.profile, *files, *others, "watch"]


def unit(site: str, source: Source, campaign: str) -> str:
    """The text of the unit."""
    words = [_quote(word) for word in command(source, campaign)]
    name = "straxflow" if campaign == "online" else f"straxflow-{campaign}"
    return UNIT.format(site=site, campaign=campaign, name=name, root=ROOT, command=" ".join(words))


def _quote(word: str) -> str:
    word = word.replace("%", "%%").replace("$", "$$")
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"' if set(word) & set(" \t\"'\\;") else word
