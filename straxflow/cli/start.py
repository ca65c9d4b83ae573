"""Start snakemake for a command, with the profile and configuration that the command itself was given."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from straxflow.batch import BATCH, KEPT, OWNER
from straxflow.cli.site import Site
from straxflow.config.load import ROOT
from straxflow.rundb.tunnel import PORT
from straxflow.slurm import SLURM

NOT_INHERITED = (BATCH, OWNER, KEPT, SLURM, PORT, "PYTHONDONTWRITEBYTECODE")


def snakemake(arguments: argparse.Namespace, site: Site, targets: Sequence[str], dry: bool = False) -> NoReturn:
    """Become `snakemake --profile PROFILE TARGET...`: its words and its exit code are those of the command."""
    argv = [sys.executable, "-m", "snakemake", *targets, "--profile", site.profile, *(["-n"] if dry else [])]
    if files := getattr(arguments, "configfiles", None):
        argv += ["--configfile", *(str(Path(file).absolute()) for file in files)]
    environment = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}"
    os.chdir(_workflow_folder())
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, argv, environment)


def _workflow_folder() -> Path:
    """The folder of the Snakefile: the current one if it has this very workflow in it (a link will do)."""
    here = Path.cwd()
    same = (here / "straxflow").resolve() == ROOT / "straxflow" and (here / "Snakefile").is_file()
    return here if same else ROOT
