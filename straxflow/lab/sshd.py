"""A throwaway sshd on loopback for the current user, with keys of its own; nothing in ~/.ssh is touched."""

import atexit
import getpass
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from straxflow.lab.process import LabError, Process, find_program, free_ports, tail, wait_for

# SHLVL: bash then reads no ~/.bashrc, whose programs (pyenv) leave locks when a session is killed
CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
StrictModes no
UsePAM no
UseDNS no
PrintMotd no
SetEnv SHLVL=1
MaxStartups 100
MaxSessions 100
Subsystem sftp internal-sftp
"""


class Sshd:
    """An ssh server in `folder`; a context manager. `ssh <ssh_options> <host> <command>` reaches it.

    Its port is kept in the folder, so that a later start, of this or of another program, has the same one.
    extra: more lines of sshd_config.
    """

    def __init__(self, folder: Path, port: int | None = None, *, extra: str = "", die_with_parent: bool = True):
        self.folder = folder.resolve()
        self.extra = extra
        self.die_with_parent = die_with_parent
        self._process = Process(self.folder, "sshd")
        self._portfile = self.folder / "sshd.port"
        if port is None and self._portfile.exists():
            port = int(self._portfile.read_text())
        self.port = port or free_ports(1)[0]

    @property
    def host(self) -> str:
        """`user@127.0.0.1`."""
        return f"{getpass.getuser()}@127.0.0.1"

    @property
    def ssh_options(self) -> list[str]:
        """Arguments of ssh that need no word of the user's own ssh configuration, and read none of it."""
        options = {
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": f"{self.folder}/known_hosts",
            "GlobalKnownHostsFile": "/dev/null",
            "LogLevel": "ERROR",
        }
        pairs = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
        return ["-F", "none", "-p", str(self.port), "-i", f"{self.folder}/user_key", *pairs]

    @property
    def log(self) -> Path:
        """The server's log."""
        return self._process.log

    @property
    def pid(self) -> int | None:
        """The server's process, None when it does not run."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server's process lives."""
        return self._process.pid is not None

    def start(self) -> Self:
        """Start it unless it runs, and wait until a login works; LabError if none does."""
        if self.running:
            return self
        program = find_program("sshd", "openssh-server")
        self.folder.mkdir(parents=True, exist_ok=True)
        for key in ("host_key", "user_key"):
            if not (self.folder / key).exists():
                command = [find_program("ssh-keygen", "openssh-client"), "-q", "-t", "ed25519", "-N", ""]
                subprocess.run([*command, "-C", "straxflow-lab", "-f", str(self.folder / key)], check=True)
        public = (self.folder / "host_key.pub").read_text()
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {public}")
        config = self.folder / "sshd_config"
        config.write_text(CONFIG.format(port=self.port, folder=self.folder) + self.extra)
        self._portfile.write_text(f"{self.port}\n")
        self.log.write_text("")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's privilege separation wants it
        # without -e it would write to the system's log
        self._process.start([program, "-D", "-e", "-f", str(config)], die_with_parent=self.die_with_parent)
        if self.die_with_parent:
            atexit.register(self.stop)
        wait_for("sshd", self._answers, 15, self.log)
        return self

    def _answers(self) -> bool:
        if not self.running:
            raise LabError(f"sshd ended at once; the end of {self.log}:\n{tail(self.log)}")
        return subprocess.run(["ssh", *self.ssh_options, self.host, "true"], capture_output=True).returncode == 0

    def stop(self) -> None:
        """End it: no new connections, and the open ones are cut."""
        self._process.kill()  # SIGTERM would leave the open sessions alone

    kill = stop

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
