import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from straxflow.lab.daq import RunPlan, run_document, write_run
from straxflow.straxjob.__main__ import main
from straxflow.straxjob.validate import check_strax_folder, read_metadata, same_data

START = datetime(2026, 11, 20, 12, tzinfo=UTC)
PLAN = RunPlan(932, "background", duration_s=2.5, chunk_length_s=0.9, chunk_overlap_s=0.1)
DEMO = "straxflow.detectors.demo:context"
Result = dict[str, Any]


def no_context(run: Any, source: str, output: str) -> dict[str, Any]:
    return {}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A folder with the live data of one run, and the number of its records."""
    folder = tmp_path_factory.mktemp("live")
    return folder, write_run(folder, PLAN, start=START).records


def run_job(folder: Path, *flags: str, **changes: Any) -> tuple[int, Result]:
    """Run a job in this process; give exit code and result."""
    folder.mkdir(parents=True, exist_ok=True)
    document = run_document(PLAN, folder, "daq", "demo", START)
    facts = {k: document[k] for k in ("number", "mode", "detectors", "daq_config")}
    job = {
        "run": "000932", "facts": {**facts, "start": START.isoformat()}, "context": DEMO, "source": "live",
        "output_folder": str(folder / "out"), "targets": ["raw_records", "peaks", "events"],
    } | changes  # fmt: skip
    (folder / "job.json").write_text(json.dumps(job, default=str))
    code = main([str(folder / "job.json"), str(folder / "result.json"), *flags])
    return code, json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="module")
def made(live: tuple[Path, int], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """raw_records, peaks and events made from live data: folder and result."""
    folder = tmp_path_factory.mktemp("made")
    code, result = run_job(folder, source_folder=live[0])
    assert (code, result["ok"], result["error"]) == (0, True, None)
    return folder / "out", result


def hashes(result: Result) -> dict[str, str]:
    return {t: facts["lineage_hash"] for t, facts in result["targets"].items()}


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.endswith("metadata.json")}


def test_all_targets_of_a_live_run_in_one_pass(live: tuple[Path, int], made: tuple[Path, Result]) -> None:
    out, result = made
    assert sorted(p.name for p in out.iterdir()) == sorted(f["folder"] for f in result["targets"].values())
    assert [p["targets"] for p in result["passes"]] == [["events", "raw_records", "peaks"]]
    raw = result["targets"]["raw_records"]
    assert raw["n_records"] == live[1]
    assert raw["dead_time"] == {"records": 0, "ns": 0}
    assert result["targets"]["peaks"]["dead_time"] is None
    assert raw["start"] == START.timestamp() * 1e9
    assert raw["end"] >= raw["start"] + PLAN.seconds * 1e9
    assert raw["files"] == check_strax_folder(out / raw["folder"]).files
    assert {"python", "strax", "numpy", "numba", "straxflow"} <= result["versions"].keys()
    assert result["cpu_seconds"] > 0
    assert result["peak_rss_mb"] > 50
    assert {"import", "context", "make"} == result["seconds"].keys()


@pytest.mark.parametrize("workers", [1, 2])
def test_from_stored_data_gives_the_same_bytes_and_reads_nothing_else(
    made: tuple[Path, Result], tmp_path: Path, workers: int
) -> None:
    out, result = made
    # another type in the source folder is not the source, and must be made again
    code, again = run_job(
        tmp_path, source="data", source_folder=out, workers=workers, targets=["events", "led_calibration", "peaks"],
        source_types={"raw_records": hashes(result)["raw_records"]},
    )  # fmt: skip
    assert (code, again["error"]) == (0, None)
    assert len(again["passes"]) == (2 if workers == 1 else 1)
    for name in ("events", "peaks"):
        folder = result["targets"][name]["folder"]
        assert content(tmp_path / "out" / folder) == content(out / folder)
        assert same_data(read_metadata(tmp_path / "out" / folder), read_metadata(out / folder))
    assert again["targets"]["led_calibration"]["n_records"] > 0
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_intermediate_products_are_sources_too(made: tuple[Path, Result], tmp_path: Path) -> None:
    out, result = made
    types = {"peaks": hashes(result)["peaks"]}
    code, _ = run_job(tmp_path, source="data", source_folder=out, targets=["events"], source_types=types)
    assert code == 0
    events = result["targets"]["events"]["folder"]
    assert content(tmp_path / "out" / events) == content(out / events)


def test_already_stored_is_success_at_once_unless_from_scratch(
    live: tuple[Path, int], made: tuple[Path, Result], tmp_path: Path
) -> None:
    out, result = made
    code, again = run_job(tmp_path / "a", source_folder=live[0], existing_folders=[tmp_path / "nothing", out])
    assert code == 0
    assert again["passes"] == []
    assert list((tmp_path / "a" / "out").iterdir()) == []
    events = result["targets"]["events"]
    assert again["targets"]["events"]["already_stored"] == str(out / events["folder"])
    assert again["targets"]["events"]["n_records"] == events["n_records"]

    code, again = run_job(tmp_path / "b", source_folder=live[0], existing_folders=[out], from_scratch=True)
    assert code == 0
    assert again["targets"]["events"]["already_stored"] is None

    # broken ones are made again, from what is whole
    shutil.copytree(out, tmp_path / "store")
    next((tmp_path / "store" / events["folder"]).glob("*000000")).unlink()
    code, again = run_job(tmp_path / "c", source_folder=live[0], existing_folders=[tmp_path / "store"])
    assert code == 0
    assert [p.name for p in (tmp_path / "c" / "out").iterdir()] == [events["folder"]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": ["event"]}, "no data type 'event' (did you mean 'events'"),
        ({"targets": []}, "targets must be a list"),
        ({"contexts": "x"}, "unknown key 'contexts' (did you mean 'context'"),
        ({"source": "tape"}, "expected 'live' or 'data'"),
        ({"context": "demo"}, "not of the form module:name"),
        ({"context": "no.such.module:context"}, "cannot import the context 'no.such.module'"),
        ({"context": "straxflow.detectors.demo:contxt"}, "did you mean 'context'"),
        ({"context": "straxflow.detectors.demo:DAQReader"}, "cannot be called with the configured keywords"),
        ({"context": f"{__name__}:no_context"}, "returned a dict, expected a strax.Context"),
        ({"context_kwargs": {"source": "x"}}, "may not set source"),
        ({"context_kwargs": {"compressors": {"peak": "zstd"}}}, "unknown data types: peak"),
        ({"config": {"hit_treshold": 3}}, "option 'hit_treshold' (did you mean 'hit_threshold'"),
        ({"register": ["straxflow:Nothing"]}, "no plugin 'Nothing'"),
        ({"source_folder": "/nowhere"}, "/nowhere/000932 is missing"),
    ],
)
def test_mistakes_are_told_in_one_line(
    live: tuple[Path, int],
    tmp_path: Path,
    changes: dict[str, Any],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, result = run_job(tmp_path, **({"source_folder": live[0]} | changes))
    assert code == 2
    assert result["ok"] is False
    assert result["error"]["type"] == "ConfigError"
    assert message in result["error"]["message"]
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_source_of_other_lineage_missing_or_not_enough(made: tuple[Path, Result], tmp_path: Path) -> None:
    out, result = made
    data = {"source": "data", "source_folder": out, "targets": ["events"]}
    raw = {"raw_records": hashes(result)["raw_records"]}

    code, other = run_job(tmp_path, **data, source_types={"raw_records": "aaaaaaaaaa"})
    assert code == 2
    assert f"other lineage: 000932-raw_records-{raw['raw_records']}" in other["error"]["message"]

    peaks = {"peaks": hashes(result)["peaks"]}
    code, other = run_job(tmp_path, **data, source_types=peaks, config={"hit_threshold": 99})
    assert code == 2
    assert f"the stored peaks has lineage {peaks['peaks']}, but the context" in other["error"]["message"]

    code, other = run_job(tmp_path, **{**data, "targets": ["led_calibration"]}, source_types=peaks)
    assert code == 2
    assert "led_calibration needs raw_records, which the source does not hold" in other["error"]["message"]


@pytest.mark.parametrize("workers", [1, 2])
def test_damaged_live_data_fail_the_job(live: tuple[Path, int], tmp_path: Path, workers: int) -> None:
    shutil.copytree(live[0], tmp_path / "live")
    victim = next(p for p in sorted((tmp_path / "live/000932/000001").iterdir()) if p.stat().st_size)
    victim.write_bytes(b"\0" * 100)
    code, result = run_job(tmp_path, source_folder=tmp_path / "live", workers=workers)
    assert code == 1
    assert result["error"]["type"] == "DataCorrupted"
    assert str(victim) in result["error"]["message"]
    assert "targets" not in result


@pytest.mark.parametrize("workers", [1, 2])
def test_artificial_dead_time_is_reported(live: tuple[Path, int], tmp_path: Path, workers: int) -> None:
    # no overlap has 80 ms without a pulse
    with pytest.warns(UserWarning, match="artificial dead time"):
        code, result = run_job(tmp_path, source_folder=live[0], config={"safe_break": 80_000_000}, workers=workers)
    assert code == 0
    raw = result["targets"]["raw_records"]
    cuts = raw["n_chunks"] - 1
    assert raw["dead_time"]["records"] == 2 * cuts
    assert raw["dead_time"]["ns"] == cuts * (80_000_000 + 1100)
    assert raw["n_records"] - raw["dead_time"]["records"] < live[1]


def test_config_context_keywords_and_extra_plugins(
    live: tuple[Path, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "extra_plugins.py").write_text(
        "import numpy as np, strax\n"
        "class Rate(strax.Plugin):\n"
        "    __version__, depends_on, provides, data_kind = '1', ('peaks',), 'rate', 'rate'\n"
        "    dtype = strax.time_fields\n"
        "    def compute(self, peaks):\n"
        "        return np.zeros(0, self.dtype)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    code, result = run_job(
        tmp_path, source_folder=live[0], targets=["raw_records", "rate"], register=["extra_plugins:Rate"],
        context_kwargs={"compressors": {"raw_records": "zstd"}},
        config={"hit_threshold": 20, "max_messages": 3},
    )  # fmt: skip
    assert (code, result["error"]) == (0, None)
    assert result["targets"]["raw_records"]["compressor"] == "zstd"
    assert result["targets"]["rate"]["n_records"] == 0
    assert "extra_plugins" in result["versions"]


def test_lineage_needs_no_data_and_prints_nothing_else(
    made: tuple[Path, Result], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, result = run_job(tmp_path, "--lineage", source_folder="/nowhere")
    assert code == 0
    assert json.loads(capsys.readouterr().out) == result["lineage"] == hashes(made[1])
    assert not (tmp_path / "out").exists()


def test_command_line_in_a_process_of_its_own(live: tuple[Path, int], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "straxflow.straxjob", "job.json", "result.json"]
    (tmp_path / "job.json").write_text("{}")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "missing key 'run'" in done.stderr
    assert json.loads((tmp_path / "result.json").read_text())["error"]["type"] == "ConfigError"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["job.json", "result.json"]
