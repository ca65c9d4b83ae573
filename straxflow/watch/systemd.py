"""A systemd unit that keeps a watcher running, with the paths of this installation."""

from __future__ import annotations

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
