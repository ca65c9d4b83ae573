"""Parts that several of these tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.slurm import Slurm
from straxflow.lab.sshd import Sshd
from tests.cluster import Cluster
from tests.site import Site


@pytest.fixture
def cluster(tmp_path: Path, rundb_server: RunDbServer, sshd: Sshd, slurm: Slurm) -> Iterator[Cluster]:
    """A site whose jobs go to the private Slurm."""
    site = Site(tmp_path, rundb_server, sshd, profile="stoomboot")
    yield Cluster(site, slurm)
    site.close()
