"""Real parts for the tests: each starts when a test first asks for it and ends with the session."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.slurm import Slurm
from straxflow.lab.sshd import Sshd

pytest_plugins = ["tests.faults.reliability"]


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """Commands that are called in this process set variables for their children: no other test may see them."""
    before = dict(os.environ)
    yield
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(scope="session")
def lab_folder() -> Iterator[Path]:
    """A folder with a short path, which unix sockets need, that is removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="straxflow-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def rundb_server(lab_folder: Path) -> Iterator[RunDbServer]:
    """A run database over the wire, shared by the session: a test takes a database name of its own."""
    with RunDbServer(lab_folder / "rundb") as server:
        yield server


@pytest.fixture(scope="session")
def sshd(lab_folder: Path) -> Iterator[Sshd]:
    """An ssh server on loopback for the current user."""
    with Sshd(lab_folder / "sshd") as server:
        yield server


@pytest.fixture(scope="session")
def shared_slurm(lab_folder: Path) -> Iterator[Slurm]:
    """A Slurm of two nodes with two CPUs each."""
    with Slurm(lab_folder / "slurm") as cluster:
        yield cluster


@pytest.fixture
def slurm(shared_slurm: Slurm) -> Iterator[Slurm]:
    """The session's Slurm as if it were a fresh one; pytest shows its words where a test has failed."""
    yield shared_slurm
    print(shared_slurm.report())
    shared_slurm.clear()
