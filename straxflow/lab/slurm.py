"""A private one-host Slurm (Debian's slurm-wlm 22.05): no systemd, no cgroups, no accounting.

munged, slurmctld and one slurmd a node, all under one folder, on loopback ports, as the current user.
"""

import atexit
import contextlib
import getpass
import os
import secrets
import shlex
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from straxflow.lab.process import LabError, Process, find_program, free_ports, kill_tree, processes, tail, wait_for

CLIENTS = ("srun", "sbatch", "squeue", "scancel", "scontrol", "sinfo", "sacct", "sacctmgr", "sshare", "sstat")

CONFIG = """\
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={port}
SlurmctldPidFile={folder}/slurmctld.own-pid
SlurmctldLogFile={folder}/slurmctld.log
StateSaveLocation={folder}/state
SlurmdPidFile={folder}/slurmd.%n.own-pid
SlurmdLogFile={folder}/slurmd.%n.log
SlurmdSpoolDir={folder}/spool.%n
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=5,bf_interval=5
PriorityType=priority/basic
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=5
JobAcctGatherParams=OverMemoryKill
MailProg=/bin/true
ReturnToService=2
KillWait=5
MinJobAge=300
SlurmdTimeout=20
SlurmctldTimeout=20
UnkillableStepTimeout=30
"""

# partition: longest runtime
PARTITIONS = {"short": "04:00:00", "long": "96:00:00"}


class Slurm:
    """A Slurm in `folder` (a short path: sockets allow 107 characters); a context manager.

    nodes, cpus (of each node) and mem (MB of each node) are what Slurm is told, whatever the machine has.
    partitions: name to longest runtime, the first one is the default. extra: more lines of slurm.conf.
    """

    def __init__(
        self,
        folder: Path,
        nodes: int = 2,
        cpus: int = 2,
        mem: int = 4000,
        *,
        partitions: Mapping[str, str] | None = None,
        extra: str = "",
        die_with_parent: bool = True,
    ):
        self.folder = folder.resolve()
        if len(f"{self.folder}/munge.socket.lock") > 107:
            raise LabError(f"{self.folder} is too long a path for munge's socket; use one under /tmp")
        self.nodes, self.cpus, self.mem = nodes, cpus, mem
        self.partitions = dict(partitions or PARTITIONS)
        self.extra = extra
        self.die_with_parent = die_with_parent
        names = ["munged", "slurmctld", *(f"slurmd.n{number}" for number in range(1, nodes + 1))]
        self._processes = {name: Process(self.folder, name) for name in names}

    @property
    def env(self) -> dict[str, str]:
        """This process's environment with SLURM_CONF, and wrapped clients first on PATH.

        The wrappers set SLURM_CONF again, which a job may not have.
        """
        path = f"{self.folder}/bin:{os.environ.get('PATH', '/usr/bin:/bin')}"
        return os.environ | {"SLURM_CONF": f"{self.folder}/slurm.conf", "PATH": path}

    @property
    def running(self) -> bool:
        """Whether all its daemons live."""
        return all(process.pid is not None for process in self._processes.values())

    def start(self) -> Self:
        """Start what does not run, and wait until srun works on all nodes (about 1 s), or, where there may be jobs of
        before that fill them, until these answer; LabError otherwise."""
        if self.running:
            return self
        fresh = not (self.folder / "slurm.conf").exists()
        (self.folder / "state").mkdir(parents=True, exist_ok=True)
        self._write_config()
        self._write_clients()
        if self.die_with_parent:
            atexit.register(self.stop)
        self._start_munged()
        config = ["-D", "-f", str(self.folder / "slurm.conf")]
        self._start("slurmctld", [find_program("slurmctld", "slurm-wlm"), *config])
        self._wait("slurmctld", ["scontrol", "ping"])
        for number in range(1, self.nodes + 1):
            node = [find_program("slurmd", "slurm-wlm"), "-N", f"n{number}", *config]
            self._start(f"slurmd.n{number}", node)
        if fresh:
            self._wait("slurmctld", ["srun", "-Q", f"-N{self.nodes}", "hostname"])
        else:
            self._wait_for_nodes()
        return self

    def stop_controller(self) -> None:
        """Stop slurmctld alone, as in an outage; `start()` brings it back with its jobs."""
        self._processes["slurmctld"].stop()

    def cut_power(self, node: str) -> None:
        """Kill a node's slurmd with all that its jobs run there; `start()` brings the node back.

        slurmctld notices after SlurmdTimeout, and ends the node's jobs with NODE_FAIL.
        """
        there = [str(self.folder / "bin/squeue"), "--noheader", "--format=%A", f"--nodelist={node}"]
        jobs = subprocess.run(there, capture_output=True, text=True, timeout=20, check=True).stdout.split()
        self._processes[f"slurmd.{node}"].kill()
        # the steps have left their slurmd; the prefix of a title like `slurmstepd: [12.batch]` names the job
        titles = tuple(f"slurmstepd: [{job}." for job in jobs)
        for pid in processes(lambda title: title.startswith(titles)):
            kill_tree(pid)

    def kill(self, *names: str) -> None:
        """End these daemons (all, if none is named) by SIGKILL; `start()` brings them back with their jobs."""
        for name in names or self._processes:
            self._processes[name].kill()

    def clear(self) -> None:
        """Bring it into the state of a fresh one, whatever was done to it: daemons started, no jobs, all nodes in
        service."""
        self.start()
        self._cancel_all()
        # a node with a process that would not end, or that was away, stays out of service
        for node in {*self._say("sinfo", "--noheader", "--Node", "--states=drain,down,fail", "--format=%N").split()}:
            self._say("scontrol", "update", f"nodename={node}", "state=resume")
        self._wait_for_nodes("--states=idle")

    def report(self) -> str:
        """What it says of its jobs and nodes, and the end of its log, for somebody who asks what went wrong."""
        try:
            jobs = self._say("squeue", "--states=all", "--format=%i %T %r %N %M %j")
            said = [jobs, self._say("sinfo", "--Node", "--long")]
        except subprocess.TimeoutExpired as error:
            said = [str(error)]
        return "\n".join([*said, tail(self._processes["slurmctld"].log, 40)])

    def stop(self) -> None:
        """Cancel all jobs and stop the daemons; queue and state stay in the folder."""
        if self._processes["slurmctld"].pid is not None:
            # what it cannot end is killed with its slurmd
            with contextlib.suppress(LabError, subprocess.TimeoutExpired):
                self._cancel_all()
        for process in reversed(self._processes.values()):
            process.stop()

    def wipe(self) -> None:
        """Stop it and delete all its state."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _cancel_all(self) -> None:
        for how in (["--signal=KILL", "--full"], []):  # the first alone spares them KillWait, but not those that wait
            self._say("scancel", *how, "-u", getpass.getuser())
        self._wait("slurmctld", ["sh", "-c", 'test -z "$(squeue -h -t R,CG)"'])

    def _say(self, *words: str) -> str:
        done = subprocess.run(words, env=self.env, capture_output=True, text=True, timeout=20)
        return done.stdout + done.stderr

    def _start(self, name: str, command: list[str]) -> None:
        process = self._processes[name]
        if process.pid is None:
            process.start(command, die_with_parent=self.die_with_parent, env=self.env)

    def _start_munged(self) -> None:
        if self._processes["munged"].pid is not None:
            return
        key = self.folder / "munge.key"
        if not key.exists():
            key.touch(0o600)
            key.write_bytes(secrets.token_bytes(1024))
        for old in self.folder.glob("munge.socket*"):
            old.unlink()
        options = {
            "--key-file": key,
            "--socket": self.folder / "munge.socket",
            "--pid-file": self.folder / "munged.own-pid",
            "--seed-file": self.folder / "munged.seed",
            "--log-file": self.folder / "munged.own-log",
            "--num-threads": 2,
        }
        # --force: a folder that only its owner can enter is good enough for one user's lab
        command = [find_program("munged", "munge"), "--foreground", "--force"]
        self._start("munged", [*command, *(f"{key}={value}" for key, value in options.items())])
        wait_for("munged", (self.folder / "munge.socket").exists, 10, self._processes["munged"].log)

    def _wait_for_nodes(self, *which: str) -> None:
        asked = shlex.join(["sinfo", "--noheader", "--responding", "--Node", "--format=%N", *which])
        self._wait("slurmctld", ["sh", "-c", f"{asked} | sort -u | wc -l | grep -qx {self.nodes}"])

    def _wait(self, name: str, command: list[str]) -> None:
        def ready() -> bool:
            try:
                run = subprocess.run(command, env=self.env, capture_output=True, timeout=20)
            except subprocess.TimeoutExpired:
                return False
            return run.returncode == 0

        wait_for(f"Slurm ({' '.join(command)})", ready, 30, self._processes[name].log)

    def _write_config(self) -> None:
        config = self.folder / "slurm.conf"
        if config.exists():
            return  # a restart keeps the ports, and jobs their controller
        host = socket.gethostname().partition(".")[0]
        port, *node_ports = free_ports(1 + self.nodes)
        text = CONFIG.format(host=host, user=getpass.getuser(), folder=self.folder, port=port)
        if self.extra:
            text += self.extra.rstrip() + "\n"
        for number, node_port in enumerate(node_ports, start=1):
            text += (
                f"NodeName=n{number} NodeHostname={host} NodeAddr=127.0.0.1 Port={node_port} "
                f"CPUs={self.cpus} RealMemory={self.mem} State=UNKNOWN\n"
            )
        for index, (name, limit) in enumerate(self.partitions.items()):
            text += (
                f"PartitionName={name} Nodes=ALL Default={'NO' if index else 'YES'} MaxTime={limit} "
                "DefaultTime=00:10:00 DefMemPerCPU=200 State=UP\n"
            )
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        config.write_text(text)

    def _write_clients(self) -> None:
        (self.folder / "bin").mkdir(exist_ok=True)
        for name in CLIENTS:
            wrapper = self.folder / "bin" / name
            program = find_program(name, "slurm-wlm")
            if Path(program) != wrapper:
                wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {program} "$@"\n')
                wrapper.chmod(0o755)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
