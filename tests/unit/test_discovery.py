"""Runs found in the DAQ's folders."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from straxflow.config import Config, load
from straxflow.daqfolder import run_place
from straxflow.errors import ConfigError
from straxflow.rundb.discovery import Discovery
from straxflow.rundb.rundoc import Malformed, make_run_id, parse, query_for
from straxflow.rundb.template import read_backwards

BEFORE = datetime(2026, 11, 1, 10, tzinfo=UTC)


def config(folder: Path, **changes: Any) -> Config:
    settings: dict[str, Any] = {
        "site": "here",
        "folders": {name: str(folder / name) for name in ("state", "live", "staging")},
        "store": {"folder": str(folder / "store")},
        "rundb": {"kind": "folders"},
        "daq": {"host": "daq", "folder": str(folder / "daq")},
        "discovery": {"look_s": 0.001},
        "runs": {"min_run_number": 1},
        "products": {"raw": {"from": "live", "kind": "command", "command": "true"}},
    }
    for key, value in changes.items():
        settings[key] = {**settings[key], **value} if isinstance(settings.get(key), dict) else value
    return load(settings)


def take(folder: Path, name: str, ended: float | None = 100, sign: str = "THE_END") -> None:
    """A run of one second, that ended so many seconds ago."""
    run = folder / "daq" / name
    (run / "000000").mkdir(parents=True)
    (run / "000000" / "reader_1").write_text("data")
    began = BEFORE.timestamp()
    if ended is not None:
        (run / sign).mkdir()
        began = time.time() - ended - 1
        os.utime(run / sign, (began + 1, began + 1))
    for path in (run / "000000" / "reader_1", run / "000000"):
        os.utime(path, (began, began))


def found(discovery: Discovery, known: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    time.sleep(0.002)
    return {d["_id"]: d for d in discovery.look(lambda key: key in known)}


def test_the_end_tells_that_a_run_has_ended(tmp_path: Path) -> None:
    take(tmp_path, "000012")
    take(tmp_path, "000013", ended=None)
    for odd in ("000014.json", "13", "notes", "0000013", "000000", ".incoming-000015"):
        (tmp_path / "daq" / odd).mkdir()
    site = config(tmp_path, discovery={"mode": "led", "document": {"detectors": ["tpc"]}})
    discovery = Discovery(site)
    runs = found(discovery)
    assert sorted(runs) == ["000012", "000013"]
    run = parse(runs["000012"], site, "online")
    assert (run.id, run.facts.number, run.facts.mode, run.facts.detectors) == ("000012", 12, "led", ["tpc"])
    assert 0.9 < run.facts.seconds < 1.1
    assert runs["000012"]["data"][0]["location"] == str(tmp_path / "daq")
    assert runs["000013"]["end"] is None
    assert runs["000013"]["start"] == BEFORE
    assert discovery.problems == []
    assert sorted(found(discovery, known=("000012",))) == ["000013"]
    (tmp_path / "daq" / "000013" / "THE_END").mkdir()
    assert found(discovery)["000013"]["end"] is not None


def test_a_folder_that_nobody_writes_to_any_more_has_ended(tmp_path: Path) -> None:
    take(tmp_path, "000001", ended=None)
    discovery = Discovery(config(tmp_path, discovery={"ended": None, "quiet_s": 60}))
    assert found(discovery)["000001"]["end"] == BEFORE
    take(tmp_path, "000002", ended=None)
    (tmp_path / "daq" / "000002" / "000000" / "reader_1").touch()
    assert found(discovery)["000002"]["end"] is None
    both = Discovery(config(tmp_path, discovery={"ended": "*.done", "quiet_s": 60}))
    assert [d["end"] for d in found(both).values()] == [None, None]
    (tmp_path / "daq" / "000001" / "run.done").touch()
    assert found(both)["000001"]["end"] is None
    os.utime(tmp_path / "daq" / "000001" / "run.done", (time.time() - 61,) * 2)
    assert found(both)["000001"]["end"] is not None


def test_facts_come_from_a_file_and_from_a_program(tmp_path: Path) -> None:
    take(tmp_path, "000001")
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\necho \'{"source": {"type": "\'$1-$2\'"}}\'\n')
    program.chmod(0o755)
    how = {"facts_file": "../facts/{folder}.yaml", "facts_command": f"{program} {{number}} {{run}}"}
    site = config(tmp_path, discovery=how)
    discovery = Discovery(site)
    assert found(discovery)["000001"]["end"] is None
    assert "facts/000001.yaml: the file with its facts is not there yet; it is looked at again" in discovery.problems[0]

    facts = tmp_path / "facts" / "000001.yaml"
    facts.parent.mkdir()
    facts.write_text("start: 2026-11-01 10:00:00\nend: '2026-11-01T11:00:00+00:00'\nmode: led\nnote: {day: 2026-11-01}")
    document = found(discovery)["000001"]
    run = parse(document, site, "online")
    assert (run.facts.start, run.facts.seconds, run.facts.mode, run.facts.source) == (BEFORE, 3600, "led", "1-000001")
    assert document["note"] == {"day": "2026-11-01"}

    for content, problem in (("- 1", "expected keys and values, found list"), ("number: 3", "number: not a fact that")):
        facts.write_text(content)
        discovery = Discovery(site)
        assert found(discovery)["000001"]["end"] is None
        assert problem in discovery.problems[0]
    facts.write_text("start: yesterday")
    with pytest.raises(Malformed, match="run 1: start: expected a date, found 'yesterday'"):
        parse(found(Discovery(site))["000001"], site, "online")
    facts.write_text("mode: led")
    program.write_text("#!/bin/sh\necho no such run >&2\nexit 3\n")
    discovery = Discovery(site)
    assert found(discovery)["000001"]["end"] is None
    assert "program: no such run; it is looked at again" in discovery.problems[0]


def test_runs_that_are_never_touched_are_not_looked_at(tmp_path: Path) -> None:
    for number in (1, 5, 9):
        take(tmp_path, f"{number:06d}")
    assert list(found(Discovery(config(tmp_path, runs={"min_run_number": 4, "max_run_number": 8})))) == ["000005"]


def test_an_unmounted_disk_is_told_once_and_is_not_a_disk_without_runs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    discovery = Discovery(config(tmp_path))
    for _ in range(3):
        assert found(discovery) == {}
    missing = f"{tmp_path}/daq: no such folder: correct daq.folder, or is the DAQ's disk mounted?"
    assert discovery.problems == [f"new runs are not looked for: {missing}"]
    assert len(caplog.records) == 1


def lcls(folder: Path, **changes: Any) -> Config:
    settings: dict[str, Any] = {
        "run_id": "{experiment}_r{number:04d}",
        "daq": {"folder": str(folder / "daq" / "{experiment}" / "xtc"), "run_folder": "r{number:04d}"},
        "discovery": {"ended": None, "quiet_s": 1},
    }
    return config(folder, **{**settings, **changes})


def test_several_experiments_have_folders_of_their_own(tmp_path: Path) -> None:
    for name in ("xppa1", "xppb2", "mfxc3"):
        for number in (1, 2):
            take(tmp_path, f"{name}/xtc/r{number:04d}", ended=None)
    (tmp_path / "daq" / "empty").mkdir()
    site = lcls(tmp_path, experiments=["xpp*"])
    runs = found(Discovery(site))
    assert sorted(runs) == ["xppa1_r0001", "xppa1_r0002", "xppb2_r0001", "xppb2_r0002"]
    run = parse(runs["xppb2_r0002"], site, "online")
    assert (run.id, run.facts.experiment, run.facts.number) == ("xppb2_r0002", "xppb2", 2)
    assert run_place(site, run.facts).path == f"{tmp_path}/daq/xppb2/xtc/r0002"
    assert query_for("xppb2_r0002", site) == {"number": 2, "experiment": "xppb2"}
    with pytest.raises(Malformed, match="'mfxc3_r0001' is no run id"):
        query_for("mfxc3_r0001", site)

    assert len(found(Discovery(lcls(tmp_path, experiments="ALL")))) == 6
    # one that is missing keeps no other from being looked at
    discovery = Discovery(lcls(tmp_path, experiments=["gone", "mfxc3"]))
    assert sorted(found(discovery)) == ["mfxc3_r0001", "mfxc3_r0002"]
    assert len(discovery.problems) == 1
    assert "daq/gone/xtc" in discovery.problems[0]


def test_a_document_of_several_experiments_must_tell_its_own(tmp_path: Path) -> None:
    site = lcls(tmp_path, experiments="ALL")
    with pytest.raises(Malformed, match="experiment: expected a name, as there are several, found None"):
        make_run_id({"number": 1}, site, "run 1")
    with pytest.raises(ConfigError, match=r"run_id: must contain \{experiment\}"):
        lcls(tmp_path, experiments=["a"], run_id="{number:06d}")
    with pytest.raises(ConfigError, match=r"daq.folder: must contain \{experiment\}"):
        lcls(tmp_path, experiments=["a"], daq={"folder": "/daq"})
    with pytest.raises(ConfigError, match="`ended` or `quiet_s` must tell"):
        config(tmp_path, discovery={"ended": None})


@pytest.mark.parametrize(
    ("template", "name", "values"),
    [
        ("{number:06d}", "000932", {"number": "000932"}),
        ("{experiment}_r{number:04d}", "xpp_1_r0932", {"experiment": "xpp_1", "number": "0932"}),
        ("r{number}.{number}", "r12.12", {"number": "12"}),
        ("r{number}.{number}", "r12.13", None),
        ("{number:06d}", "x00932", None),
    ],
)
def test_templates_are_read_backwards(template: str, name: str, values: dict[str, str] | None) -> None:
    assert read_backwards(template, name, {}) == values


def test_json_of_facts_is_yaml_too(tmp_path: Path) -> None:
    take(tmp_path, "000001")
    (tmp_path / "daq" / "000001.json").write_text(json.dumps({"start": BEFORE.timestamp(), "mode": "a b"}))
    site = config(tmp_path, discovery={"facts_file": "{folder}.json"})
    assert parse(found(Discovery(site))["000001"], site, "online").facts.start == BEFORE
