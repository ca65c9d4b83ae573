"""The online monitor through the real workflow: summaries of products that were made, in the run database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from straxflow.rundb import summaries
from straxflow.rundb.client import connect
from tests.site import QUICK_PRODUCTS, Document, Site

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
    from straxflow import summaries as files
    from straxflow.lab.history import History

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
