"""Names and fields from elsewhere that try to leave their place, and secrets that try to get out."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from straxflow.config import load
from straxflow.digests import Manifest
from straxflow.errors import Damaged
from straxflow.lab.sshd import Sshd
from straxflow.rundb.rundoc import Malformed, parse, query_for
from tests.faults.checks import nothing_is_lost
from tests.faults.conftest import MakeSite
from tests.faults.test_faults_config import MINIMAL
from tests.site import ROOT, Site

SECRET = "hunter2-never-shown"
ODD_NAMES = [
    "a b", " ", "-rf", "--delete", "#x", ";x", "*", "?[a]", "~", "$(touch X)", "`touch X`", "'q'", '"q"', "a\nb",
    "a\\b", "a\tb", "ü☢", "\x1b[31m", ".hidden", "..x", "x" * 200, "sub/-n", "sub/ü\n/x", "%s{run}", "000001/y",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.fault(
    group="security",
    broken="a product whose files have line breaks, quotes, dashes, shell words, escapes, patterns in their names",
    left="each file stored and verified under its own name ({where}); nothing else touched",
    next="nothing to do",
)
@pytest.mark.parametrize("where", ["on a disk here", "on another host"])
def test_names_of_files_are_only_names(make_site: MakeSite, sshd: Sshd, where: str) -> None:
    site = make_site()
    maker = site.folder / "maker.py"
    maker.write_text(
        f"import pathlib, sys\nfor n, name in enumerate({ODD_NAMES!r}):\n"
        "    path = pathlib.Path(sys.argv[1], name)\n    path.parent.mkdir(exist_ok=True, parents=True)\n"
        "    path.write_text(str(n))\n"
    )
    # what is made from it needs the copy that comes back from the store
    copy = f"{sys.executable} {maker} {{output}}"
    site.configure(products={"raw": {"from": "live", "kind": "command", "command": copy}})
    if where == "on another host":
        site.configure(store={"ssh": sshd.host, "ssh_options": sshd.ssh_options})
    site.take(1, "led", 0.5)
    result = site.snakemake()
    assert (result.code, site.status(1)) == (0, "done"), result.output
    (stored,) = (site.folder / "store").glob("000001-raw-*")
    assert {n: (stored / name).read_text() for n, name in enumerate(ODD_NAMES)} == {
        n: str(n) for n in range(len(ODD_NAMES))
    }
    assert not [path for path in site.folder.rglob("X") if path.name == "X"]
    sums = site.state().run("000001") / "raw" / "xxh128sums.txt"
    checked = subprocess.run(["xxhsum", "-c", str(sums)], cwd=stored.parent, capture_output=True, check=False)
    assert checked.returncode == 0, checked
    nothing_is_lost(site, [1])


@pytest.mark.slow
@pytest.mark.fault(
    group="security",
    broken="a product that holds a link out of its folder, a pipe, a file whose name is no UTF-8",
    left="nothing published; the run failed, its reason names the file",
    next="tries again, as after any failure of the program",
)
def test_a_product_of_links_and_pipes_is_not_published(make_site: MakeSite) -> None:
    site = make_site(failures={"backoff_s": 600})
    lines = {
        1: ("ln -s /etc/passwd {output}/link", "'link' is a symbolic link"),
        2: ("ln -s /etc {output}/folder", "'folder' is a symbolic link"),
        3: ("mkfifo {output}/pipe", "'pipe' is not a regular file"),
        4: ("python -c \"import sys; open(sys.argv[1].encode() + b'/x\\xff', 'w').write('x')\" {output}", "no UTF-8"),
    }
    products = {
        f"p{n}": {"from": "live", "kind": "command", "command": line, "modes": {"include": ["led"]}}
        for n, (line, _) in lines.items()
    }
    site.configure(products=products)
    site.take(1, "led", 0.5)
    result = site.snakemake("--keep-going")
    assert result.code != 0
    for n, (_, told) in lines.items():
        reasons = [str(a.reason) for a in site.attempts("000001") if a.product == f"p{n}"]
        assert any(told in reason for reason in reasons), (n, reasons)
        assert not any("a bug" in reason for reason in reasons)
    assert not list((site.folder / "staging").glob("0*"))
    assert not list((site.folder / "store").glob("0*"))


OUTSIDE: list[Any] = [
    "../../etc", "/etc/passwd", "a/b", ".", "..", "-rf", "a b", "$(touch X)", "a\nb", "", "a-b", "ü", "x\0", 5, None
]  # fmt: skip


@pytest.mark.fault(
    group="security",
    broken="a run document whose name, experiment or mode would lead out of its folder",
    left="the document; the run is passed over, with the field's name",
    next="the same, until it is corrected",
)
@pytest.mark.parametrize("template", ["{name}", "{experiment}_{number:04d}", "{number:06d}_{mode}"])
def test_a_run_document_stays_in_its_folder(template: str) -> None:
    config = load(
        {**MINIMAL, "run_id": template, "experiments": "ALL" if "{exp" in template else [],
         "daq": {"host": "d", "folder": "/daq/{experiment}", "run_folder": "{run}"}}
    )  # fmt: skip
    whole: dict[str, Any] = {
        "_id": 1, "number": 5, "name": "n5", "experiment": "e", "mode": "m",
        "start": datetime(2026, 1, 1, tzinfo=UTC), "end": datetime(2026, 1, 2, tzinfo=UTC),
    }  # fmt: skip
    field = template.partition("{number:06d}_")[2].strip("{}") or template[1 : template.index("}")]
    assert parse(whole, config, "online").id
    for value in OUTSIDE:
        with pytest.raises(Malformed, match=f"run 5: {field}|run id"):
            parse({**whole, field: value}, config, "online")
        if isinstance(value, str):
            with pytest.raises(Malformed):
                query_for(template.format(number=5, **{"name": value, "experiment": value, "mode": value}), config)


@pytest.mark.fault(
    group="security",
    broken="a manifest (of a receipt, or of a list beside it) with absolute paths, `..`, or a path twice",
    left="everything; it is refused before a file is opened",
    next="the same, until the receipt is removed",
)
@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "", ".", "a//b", "a/", "./a", "x\0y", ".."])
def test_a_manifest_stays_in_its_folder(path: str) -> None:
    with pytest.raises(Damaged, match="is not a plain relative path"):
        Manifest.from_rows("xxh128", [(path, 1, "0" * 32)])


TELLING = """
import os
from straxflow.detectors.demo import context as demo

def tell():
    print(dict(os.environ), open("/proc/self/environ").read(), flush=True)

def context(**options):
    tell()
    return demo(**options)

tell()
"""
"""A context that prints its environment, as a strax server loads it and as a job of that server uses it."""


def holders_of(secret: bytes, site: Site) -> list[str]:
    """Files of a deployment that hold a secret."""
    return [str(p) for p in site.folder.rglob("*") if p.is_file() and not p.is_symlink() and secret in p.read_bytes()]


@pytest.mark.slow
@pytest.mark.fault(
    group="security",
    broken="programs that print their whole environment and all command lines, with the password in use",
    left="no trace of the password in a log, receipt, process list, document or message",
    next="nothing to do",
)
def test_a_password_is_nowhere_to_be_seen(make_site: MakeSite) -> None:
    tells = 'sh -c \'env; tr "\\0" " " < /proc/self/environ; ps -ef; cat {source}/{run}/*/* > {output}/data\''
    products: dict[str, Any] = {
        "raw": {"from": "live", "kind": "command", "command": tells, "summary": "env"},
        "raw_records": {"from": "live"},
    }
    site = make_site(products=products, hooks={"on_failure": "env"})
    (site.folder / "telling.py").write_text(TELLING)
    environment = {"SOME_TOKEN": SECRET[::-1], "PYTHONPATH": f"{ROOT}:{site.folder}", "TOLD": "by strax"}
    site.configure(strax={"environment": environment, "context": "telling:context"})
    site.take(1, "led", 0.5)
    seen: set[bytes] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(file.read_bytes())
                except OSError:
                    continue

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        with site.background(env={"STRAXFLOW_RUNDB_PASSWORD": SECRET}) as running:
            result = running.wait(200)
        shown = site.command(
            "straxflow", "--configfile", "config/config.yaml", "config", env={"STRAXFLOW_RUNDB_PASSWORD": SECRET}
        )
    finally:
        over.set()
        watcher.join()
    assert result.code == 0, result.output
    assert any(b"straxflow.steps.main" in words for words in seen)
    for secret in (SECRET, SECRET[::-1]):
        assert not [words for words in seen if secret.encode() in words]
        assert secret not in result.output
        assert secret not in shown.output
        assert secret not in repr(site.dump_database())
    told = {Path(name).name for name in holders_of(b"'TOLD': 'by strax'", site)}
    assert any(name.endswith(".strax.log") for name in told), "the server of strax has not told"
    assert any("process" in name for name in told), f"the job of that server has not told: {told}"
    assert holders_of(SECRET.encode(), site) == []
    assert site.status(1) == "done"
