"""A deployment on the private Slurm."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import yaml

from straxflow.lab.slurm import Slurm
from tests.site import ROOT, Site


class Cluster:
    """A deployment whose snakemake finds the private Slurm, and what that Slurm says of its jobs."""

    def __init__(self, site: Site, slurm: Slurm) -> None:
        self.site = site
        self.slurm = slurm
        path = f"{slurm.folder}/bin:{ROOT}/.venv/bin:{os.environ['PATH']}:/usr/sbin:/sbin"
        self.env = {"SLURM_CONF": slurm.env["SLURM_CONF"], "PATH": path}

    def profile(self, **settings: Any) -> None:
        """Put a changed copy of the profile `stoomboot` in its place."""
        merged = yaml.safe_load((ROOT / "stoomboot/config.yaml").read_text()) | settings
        (self.site.root / "stoomboot").unlink()
        (self.site.root / "stoomboot").mkdir()
        (self.site.root / "stoomboot/config.yaml").write_text(yaml.safe_dump(merged))

    def jobs(self) -> list[dict[str, str]]:
        """This deployment's jobs, oldest first, with the fields of scontrol."""
        shown = self.run("scontrol", "-o", "show", "job")
        jobs = [dict(part.split("=", 1) for part in line.split() if "=" in part) for line in shown.splitlines()]
        return [job for job in jobs if job.get("WorkDir", "").startswith(str(self.site.folder))]

    def run(self, *words: str) -> str:
        """What a Slurm command says."""
        done = subprocess.run(words, env=os.environ | self.env, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def job_of(self, rule: str, run: str, attempt: int = 0) -> dict[str, str]:
        """The job of an attempt of a rule on a run."""
        return [j for j in self.jobs() if j.get("Comment", "").startswith(f"rule_{rule}_wildcards_{run}")][attempt]
