"""An ssh tunnel to the run database: opened on a free port, watched, reopened when it falls.

The main process opens one for its whole life; its local jobs find it through the environment.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time

from straxflow.config.sections.places import Tunnel as TunnelSettings
from straxflow.errors import RunDbError
from straxflow.transport.child import die_with_parent
from straxflow.transport.ssh import command

PORT = "STRAXFLOW_RUNDB_TUNNEL"
QUICK_S = 10.0
"""A tunnel that lived shorter was none; and the longest pause before the next one, seconds."""


class Tunnel:
    """A tunnel that lives as long as this object is open."""

    def __init__(self, settings: TunnelSettings, timeout_s: float) -> None:
        self._settings = settings
        self._timeout_s = max(timeout_s, 5)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._ssh: subprocess.Popen[str] | None = None
        self._closing = threading.Event()
        self._watcher: threading.Thread | None = None

    def open(self) -> None:
        """Open it and wait until it carries connections.

        Raises:
            RunDbError: with ssh's own words if it does not come up in time.
        """
        self._start()
        deadline = time.monotonic() + 2 * self._timeout_s
        while not answers(self.port):
            assert self._ssh is not None
            if self._ssh.poll() is not None or time.monotonic() > deadline:
                self._ssh.kill()
                words = self._ssh.communicate()[1].strip().splitlines()
                raise RunDbError(
                    f"the ssh tunnel through {self._settings.ssh} to {self._settings.remote_host}:"
                    f"{self._settings.remote_port} does not open: {words[-1] if words else 'no answer'}; "
                    "check rundb.tunnel and that ssh to that host works without a password"
                )
            time.sleep(0.05)
        self._watcher = threading.Thread(target=self._watch, name="rundb-tunnel", daemon=True)
        self._watcher.start()

    def share(self) -> None:
        """Let child processes use it."""
        os.environ[PORT] = str(self.port)

    def close(self) -> None:
        """Close it."""
        if os.environ.get(PORT) == str(self.port):
            del os.environ[PORT]
        self._closing.set()
        if self._ssh is not None:
            self._ssh.terminate()
            try:
                self._ssh.communicate(timeout=5)
            except subprocess.TimeoutExpired:
                self._ssh.kill()

    def _start(self) -> None:
        settings = self._settings
        forward = f"127.0.0.1:{self.port}:{settings.remote_host}:{settings.remote_port}"
        options = ["-N", "-o", "ExitOnForwardFailure=yes", "-L", forward, *settings.ssh_options]
        self._ssh = subprocess.Popen(
            [*command(options), "--", settings.ssh],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=die_with_parent(),
        )

    def _watch(self) -> None:
        pause, began = 1.0, time.monotonic()
        while not self._closing.wait(pause):
            if self._ssh is not None and self._ssh.poll() is not None:
                # to log in each second, in vain, is what hosts shut people out for
                pause = 1.0 if time.monotonic() - began > QUICK_S else min(2 * pause, QUICK_S)
                self._ssh.communicate()
                self._start()
                began = time.monotonic()


def answers(port: int) -> bool:
    """Whether somebody listens on a loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def shared_port() -> int | None:
    """The port of the main process's tunnel, if there is one and it stands."""
    port = os.environ.get(PORT, "")
    return int(port) if port.isdigit() and answers(int(port)) else None
