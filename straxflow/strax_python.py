"""The Python that has strax at this site: asked from outside, as the strax step does."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from straxflow import inherited
from straxflow.config import LIVE, Config
from straxflow.config.load import ROOT
from straxflow.errors import StepFailed


def is_own(config: Config) -> bool:
    """Whether strax runs in straxflow's own Python."""
    return list(config.strax.python) == ["python"]


def ask(config: Config, module: str, arguments: Sequence[str], timeout_s: float) -> Any:
    """Run a module there; the JSON in the last line of its output.

    Raises:
        StepFailed: with the last words of its error output.
    """
    python = [sys.executable] if is_own(config) else list(config.strax.python)
    environment = {**inherited.environment(config), "PYTHONPATH": str(ROOT), **config.strax.environment}
    try:
        done = subprocess.run(
            [*python, "-m", module, *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except OSError as error:
        raise StepFailed(f"strax.python: cannot run {python[0]!r}: {error.strerror}; check the config") from None
    except subprocess.TimeoutExpired:
        raise StepFailed(f"strax.python: {module} in {python[0]} took more than {timeout_s:g} s") from None
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        words = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise StepFailed(f"strax.python: {words[0]}") from None


def context_of(config: Config, product: str) -> dict[str, Any]:
    """The context of a product of kind strax: its name, keywords and options."""
    chosen = config.products[product]
    return {
        "context": chosen.context or config.strax.context,
        "context_kwargs": {**config.strax.context_kwargs, **chosen.context_kwargs},
        "config": {**config.strax.config, **chosen.config},
    }


def lineages(config: Config, context: Mapping[str, Any], targets: Sequence[str], timeout_s: float) -> dict[str, str]:
    """The lineage hashes that a context gives its targets today; they do not depend on the run.

    Raises:
        StepFailed: if strax or the context cannot be asked.
    """
    with tempfile.TemporaryDirectory(prefix="straxflow-lineage-") as folder:
        job = Path(folder) / "job.json"
        request = {"run": "0", "source": LIVE, "source_folder": folder, "output_folder": folder, "targets": targets}
        job.write_text(json.dumps({**context, **request}, default=str), encoding="utf-8")
        found: dict[str, str] = ask(config, "straxflow.straxjob", ["--lineage", str(job)], timeout_s)
    return found


def package_of(context: str) -> str:
    """The package that a context comes from, for its version: an adapter of straxflow is named like its package."""
    module = context.partition(":")[0].split(".")
    if module[:2] == ["straxflow", "detectors"]:
        return "straxflow" if module[2:3] in ([], ["demo"]) else module[2]
    return module[0]
