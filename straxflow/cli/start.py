"""Start snakemake for a command, with the profile and configuration that the command itself was given."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from straxflow.batch import BATCH
from straxflow.cli.site import Site
from straxflow.watch.invocations import NOT_INHERITED, command, workflow_folder


def snakemake(arguments: argparse.Namespace, site: Site, targets: Sequence[str], dry: bool = False) -> NoReturn:
    """Become `snakemake --profile PROFILE TARGET...`: its words and its exit code are those of the command."""
    files = [str(Path(file).absolute()) for file in getattr(arguments, "configfiles", None) or ()]
    argv = [
        *command(site.profile),
        *(["--configfile", *files] if files else []),
        *(["-n"] if dry else []),
        "--",
        *targets,
    ]
    environment = {name: value for name, value in os.environ.items() if name not in (BATCH, *NOT_INHERITED)}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}"
    os.chdir(workflow_folder())
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, argv, environment)
