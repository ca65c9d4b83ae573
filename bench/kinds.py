"""What the bench of many small runs makes of a run, and how it sees that two ways made the same."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from straxflow.config.load import ROOT


@dataclass(frozen=True)
class Kind:
    """What is made of each run: data types by a context, in one process that may be any Python."""

    name: str
    context: str
    targets: list[str]
    in_loop: int
    """Runs that the loop is measured with."""
    python: str = sys.executable
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def product(self) -> str:
        """The one product that straxflow makes of it."""
        return self.targets[-1]

    def settings(self, count: int) -> dict[str, Any]:
        """The site's configuration."""
        strax = {"python": [self.python], "environment": self.environment, "context": self.context, "max_gap_s": 2}
        return {
            "claim": {"max_runs": count},
            "strax": strax,
            "products": {self.product: {"from": "live", "targets": self.targets}},
        }


DEMO = Kind("demo", "straxflow.detectors.demo:context", ["raw_records"], 12)
QUICK_DEMO = replace(DEMO, in_loop=3)
# not peak_basics: how many neighbours compete (n_competing) depends on where chunks end
AMSTRAX = Kind(
    "amstrax",
    "straxflow.detectors.amstrax:context",
    ["raw_records", "peaks"],
    4,
    str(ROOT / ".venv-amstrax" / "bin" / "python"),
    {"GIT_PYTHON_REFRESH": "quiet"},
)


def check_same(one: Path, other: Path, runs: list[str]) -> str:
    """Compare the data files of some runs in two stores; what was compared, in words.

    Raises:
        RuntimeError: if they differ, or if there are none.
    """
    total = 0
    for name in runs:
        here, there = _digests(one, name), _digests(other, name)
        if not here or here != there:
            different = sorted(file for file in here | there if here.get(file) != there.get(file))
            raise RuntimeError(f"run {name}: {one} and {other} do not hold the same: {different or 'no files'}")
        total += len(here)
    return f"{len(runs)} runs ({total} files)"


def _digests(store: Path, run: str) -> dict[str, str]:
    files = (path for folder in store.glob(f"{run}-*") for path in folder.rglob("*"))
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file() and path.suffix != ".json"
    }
