import subprocess
import sys
from pathlib import Path

import pytest

from straxflow import versions as module
from straxflow.versions import git_state, package_version, versions


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_git_state_of_a_checkout_but_not_of_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "plugin_pkg"
    package.mkdir()
    (package / "__init__.py").write_text("__version__ = '1.2'\n")
    git(tmp_path, "init", "-q", "-b", "trunk")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    monkeypatch.syspath_prepend(str(tmp_path))

    found = package_version("plugin_pkg")
    assert found.version == "1.2"
    assert found.git is not None
    assert (found.git.branch, len(found.git.commit), found.git.dirty) == ("trunk", 40, False)
    assert str(found).startswith("plugin_pkg 1.2 (trunk ")

    (package / "__init__.py").write_text("__version__ = '1.3'\n")
    git(tmp_path, "checkout", "-q", "--detach")
    state = git_state(package)
    assert state is not None
    assert (state.branch, state.dirty) == (None, True)

    installed = tmp_path / "site-packages" / "other"
    installed.mkdir(parents=True)
    assert git_state(installed) is None


def test_missing_package_and_missing_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    module.package_version.cache_clear()
    found = {v.name: v for v in versions(["straxflow", "no_such_package"])}
    assert found["python"].path == sys.executable
    assert found["straxflow"].version
    assert found["straxflow"].git is None
    assert str(found["no_such_package"]) == "no_such_package not installed"
    assert found["no_such_package"].as_dict() == {"name": "no_such_package"}
    assert "straxflow" in module.DEFAULT_PACKAGES
