"""Which software made the data: version, path and git state of packages (standard library only)."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import platform
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

DEFAULT_PACKAGES = ("straxflow", "strax", "numpy", "numba")


@dataclass(frozen=True)
class GitState:
    """Where a checkout stands; `branch` is None on a detached head."""

    branch: str | None
    commit: str
    dirty: bool


@dataclass(frozen=True)
class PackageVersion:
    """One package as this Python finds it; `version` and `path` are None if it is not installed."""

    name: str
    version: str | None
    path: str | None
    git: GitState | None = None

    def __str__(self) -> str:
        text = f"{self.name} {self.version or 'not installed'}"
        if self.git:
            dirty = ", with changes" if self.git.dirty else ""
            text += f" ({self.git.branch or 'detached'} {self.git.commit[:10]}{dirty})"
        return text

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-able dictionary without empty values."""
        return {k: v for k, v in asdict(self).items() if v is not None}


def versions(packages: Iterable[str] = DEFAULT_PACKAGES) -> list[PackageVersion]:
    """Return Python's own version, then that of each package, without importing those with metadata."""
    python = PackageVersion("python", platform.python_version(), sys.executable)
    return [python, *(package_version(name) for name in dict.fromkeys(packages))]


@cache
def package_version(name: str) -> PackageVersion:
    """Return version, path and git state of one package (its import name), as first asked for: what runs here was
    loaded then."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return PackageVersion(name, None, None)
    locations = list(spec.submodule_search_locations or ())
    path = Path(locations[0] if locations else spec.origin or "")
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version = _own_version(name)
    return PackageVersion(name, version, str(path), git_state(path))


def _own_version(name: str) -> str:
    try:
        return str(getattr(importlib.import_module(name), "__version__", "unknown"))
    except Exception:  # a package that does not import has no version to tell
        return "unknown (does not import)"


def git_state(path: Path) -> GitState | None:
    """Return the git state of the checkout that a package lies in, None if it lies in none.

    An installed package is no checkout, even where its environment lies inside one.
    """
    if {"site-packages", "dist-packages"} & set(path.parts):
        return None
    folder = path if path.is_dir() else path.parent
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return None
    branch = _git(folder, "symbolic-ref", "--short", "--quiet", "HEAD")
    return GitState(branch or None, commit, bool(_git(folder, "status", "--porcelain", "--untracked-files=no")))


def _git(folder: Path, *arguments: str) -> str:
    # safe.directory: a shared checkout often belongs to another user than the one who runs the job
    command = ["git", "-c", "safe.directory=*", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def main() -> None:
    """Print the versions of the packages on the command line as JSON (`python -m straxflow.versions PACKAGE...`)."""
    print(json.dumps([version.as_dict() for version in versions(sys.argv[1:] or DEFAULT_PACKAGES)]))


if __name__ == "__main__":
    main()
