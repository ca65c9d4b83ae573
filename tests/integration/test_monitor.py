"""The online monitor through the real workflow: summaries of products that were made, in the run database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from straxflow import summaries as files
from straxflow.cli.site import Site as CliSite
from straxflow.dashboard.page import Page
from straxflow.lab.history import History
from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from straxflow.rundb import summaries
from straxflow.rundb.client import connect
from tests.folder_site import FolderSite
from tests.site import QUICK_PRODUCTS, Document, Site, wait_until

SVG = "<svg xmlns='http://www.w3.org/2000/svg'/>"
COUNT = """\
import json, pathlib, sys
data, output, run, number, mode, product = sys.argv[1:]
size = sum(f.stat().st_size for f in pathlib.Path(data).rglob('*') if f.is_file())
values = {'run': run, 'number': int(number), 'mode': mode, 'product': product, 'mean size (B)': size}
pathlib.Path(output, 'summary.json').write_text(json.dumps({'values': values}))
pathlib.Path(output, 'plot.svg').write_text("SVG")
""".replace("SVG", SVG)
OWN = 'sh -c \'echo data > {output}/data; printf "%s" "$0" > {output}/summary.json\' '


@pytest.fixture
def site(tmp_path: Path, rundb_server: RunDbServer, sshd: Sshd) -> Iterator[Site]:
    """A site whose products are summarised in all ways, also in one that fails."""
    (tmp_path / "count.py").write_text(COUNT)
    count = f"python {tmp_path}/count.py {{data}} {{output}} {{run}} {{number}} {{mode}} {{product}}"
    products: Document = {
        "raw": {**QUICK_PRODUCTS["raw"], "summary": count},
        "own": {"from": "raw", "kind": "command", "command": OWN + '{{"values":{{"a.b":2}}}}'.replace('"', '\\"')},
        "none": {"from": "raw", "kind": "command", "command": "sh -c 'echo data > {output}/data'", "summary": "false"},
    }
    site = Site(tmp_path / "site", rundb_server, sshd, settings={"products": products})
    yield site
    site.close()


def test_summaries_reach_the_database(site: Site) -> None:
    site.take(7)
    result = site.snakemake()
    assert result.code == 0, result.output
    assert site.status(7) == "done"
    folder = site.state().run("000007")
    assert (folder / "raw" / "plot.svg").read_text() == SVG
    assert (folder / "own" / "summary.json").is_file()
    assert not (folder / "none" / "summary.json").exists()
    log = (site.state().folder / "logs/000007/none.process.attempts.log").read_text()
    assert "no summary of none: its command failed (exit code 1" in log
    with connect(site.config) as db:
        raw = summaries.newest(db, "online", "raw", 10)
        own = summaries.newest(db, "online", "own", 10)
        assert summaries.newest(db, "online", "none", 10) == []
        assert summaries.plot(db, "online", "000007", "raw") == ("svg", SVG.encode())
        assert summaries.plot(db, "online", "000007", "own") is None
    values = {v["name"]: v["value"] for v in raw[0]["values"]}
    size = values.pop("mean size (B)")
    assert size > 100_000
    assert values == {"run": "000007", "number": 7, "mode": "background", "product": "raw"}
    assert [(row["run"], row["number"], row["values"]) for row in own] == [("000007", 7, [{"name": "a.b", "value": 2}])]
    # registering again is no second summary
    again = site.snakemake("runs/000007/raw/registered.json", "-R", "register")
    assert again.code == 0, again.output
    with connect(site.config) as db:
        assert len(summaries.newest(db, "online", "raw", 10)) == 1


def test_no_more_than_so_many_are_kept(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summaries, "KEPT", 4)
    monkeypatch.setattr(summaries, "PLOTS_KEPT", 2)
    history = History(site.config, site.state(), site.runs)
    with connect(site.config) as db:
        for number in range(1, 8):
            site.document(number)
            run = f"{number:06d}"
            history.facts(run, number)
            (site.state().run(run) / "raw").mkdir()
            history.summary(db, run, "raw", {"n": number}, SVG)
        rows = summaries.newest(db, "online", "raw", 10)
        assert [row["number"] for row in rows] == [7, 6, 5, 4]
        assert [bool(row["plot"]) for row in rows] == [True, True, False, False]
    assert files.plot_of(site.state(), "000001", "raw", "svg") == SVG.encode()  # the files stay


def test_without_a_run_database(tmp_path: Path) -> None:
    """A site of folders has summaries, and a page, as any other."""
    (tmp_path / "count.py").write_text(COUNT)
    count = f"python {tmp_path}/count.py {{data}} {{output}} {{run}} {{number}} {{mode}} {{product}}"
    folders = FolderSite(tmp_path / "site", products={"raw": {**QUICK_PRODUCTS["raw"], "summary": count}})
    folders.take(1, size_mb=0.5)
    result = folders.snakemake()
    assert result.code == 0, result.output
    folders.take(2, size_mb=0.5)
    page = Page(CliSite(folders.config, "online", "none", "config.yaml"))
    status = wait_until(lambda: (s := page.overview())["monitor"] and s["database"]["made"] and s)
    assert status["database"]["problem"] is None
    assert (status["counts"]["done"], status["monitor"][0]["runs"][0]["run"]) == (1, "000001")
    found = page.plot("000001", "raw")
    assert found == ("svg", SVG.encode())
    runs = wait_until(lambda: page.runs(None, None)["runs"])
    assert [run["run"] for run in runs] == ["000002", "000001"]
