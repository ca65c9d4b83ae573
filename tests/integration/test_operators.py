"""Several people operate one site: real users, told apart by the kernel."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from straxflow.config import Config
from straxflow.permissions import lacking
from tests.folder_site import FolderSite
from tests.site import QUICK_PRODUCTS, Result

GROUP = "users"
ANNE, BEN, STRANGER = 20001, 20002, 20003
HANGS = {"raw": {"from": "live", "kind": "command", "command": "sleep 600"}}

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root may start processes of other users"
)


class Operators(FolderSite):
    """A site that was set up by nobody yet, in folders to which the group may write."""

    user = ANNE

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder, permissions={"group": GROUP, "umask": "0007"}, **settings)
        for made in ("state", "live", "staging", "store"):
            shutil.rmtree(self.folder / made)
        for shared in (self.folder, self.root):
            os.chown(shared, 0, 100)
            shared.chmod(0o2770)

    def words(self, *command: str) -> list[str]:
        """A command line as the present user, who may read what lies in root's folders (this Python), and no more."""
        groups = ["--clear-groups"] if self.user == STRANGER else ["--groups", "100"]
        who = ["--reuid", str(self.user), "--regid", str(self.user), *groups]
        return ["setpriv", *who, "--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search", *command]

    def argv(self, *words: str) -> list[str]:
        """snakemake, as the present user."""
        return self.words(*super().argv(*words))

    def straxflow(self, *words: str) -> Result:
        """The command, as the present user."""
        return self.command(*self.words("straxflow", "--configfile", str(self.root / "config" / "config.yaml"), *words))

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """With a home that is the user's alone."""
        home = self.folder / f"home{self.user}"
        home.mkdir(exist_ok=True)
        os.chown(home, self.user, self.user)
        home.chmod(0o700)
        return super().environment(
            {"HOME": str(home), "LOGNAME": f"user{self.user}", "XDG_CACHE_HOME": str(home / ".cache"), **(extra or {})}
        )


def closed_doors(site: Operators, config: Config) -> list[str]:
    """All that straxflow made that the group could not change, or others could."""
    found = []
    for top in ("state", "live", "staging", "store"):
        for path in [site.folder / top, *(site.folder / top).rglob("*")]:
            # what a kill leaves of snakemake's copies of scripts; what may hold secrets, read by nobody else's jobs
            own = ".snakemake/scripts/" in str(path) or path.name.endswith(".config.json") or path.is_symlink()
            if not own and (text := lacking(config, path)):
                found.append(f"{path}: {text}")
    return found


@pytest.mark.fault(
    group="security",
    broken="several people operate a site, one by one, one is killed, a stranger comes",
    left="all files with the group, umask and setgid bit as configured",
    next="goes on where the other left off",
)
@pytest.mark.slow
def test_one_goes_on_where_another_left_off(tmp_path: Path) -> None:
    site = Operators(tmp_path)
    config = site.config
    for number in (1, 2):
        site.take(number, "led", 0.5)
    # what the DAQ keeps to itself there is the group's here
    for path in (site.folder / "daq").rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    made = site.straxflow("init")
    assert made.code == 0, made.output
    result = site.snakemake()
    assert result.code == 0, result.output
    assert [site.status(n) for n in (1, 2)] == ["done", "done"]
    assert closed_doors(site, config) == []
    live = site.folder / "live" / "000001"
    assert (live.stat().st_uid, live.stat().st_gid, stat.S_IMODE(live.stat().st_mode)) == (ANNE, 100, 0o2770)

    # the other one: everything again, on what the first one made
    site.user = BEN
    assert "all there already" in site.straxflow("init").output
    check = site.straxflow("check")
    assert "permissions     group users, umask 0007\n" in check.output, check.output
    named = site.snakemake("runs/000001/released.json", "-R", "process")
    assert named.code == 0, named.output
    site.take(3, "led", 0.5)
    again = site.snakemake()
    assert again.code == 0, again.output
    assert site.status(3) == "done"
    assert closed_doors(site, config) == []

    # and a run that the first one's killed invocation left
    site.user = ANNE
    site.configure(products=HANGS)
    site.take(4, "led", 0.5)
    with site.background() as first:
        first.until(lambda: any(a.step == "process" for a in site.attempts("000004")))
        first.kill()
        site.user = BEN
        site.configure(products=QUICK_PRODUCTS)
        over = site.snakemake()
    assert over.code == 0, over.output
    assert site.status(4) == "done"
    assert "Permission denied" not in over.output
    assert closed_doors(site, config) == []

    site.user = STRANGER
    stranger = site.straxflow("check")
    assert stranger.code == 1
    assert "this user is not in group users" in stranger.output
    site.user = ANNE
    (site.folder / "live").chmod(0o755)
    assert "live: has mode 755, expected 2770" in site.straxflow("check").output
    assert "made group and mode of" in site.straxflow("init").output
    assert closed_doors(site, config) == []
