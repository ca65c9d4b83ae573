"""The command line: options, exit codes, what is said; nothing here needs a server."""

import json
import os
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from straxflow.attempts import AttemptFile
from straxflow.claimfile import ClaimFile
from straxflow.claimfile import write as write_claim
from straxflow.cli import check_disks, check_programs, indexes, main
from straxflow.cli.main import _config_files_apart
from straxflow.cli.site import Site
from straxflow.config import load
from straxflow.config.sections.places import Room
from straxflow.disks import Disk
from straxflow.errors import StepFailed
from straxflow.folders import init_folders
from straxflow.owner import Owner
from straxflow.receipts import Processed, RunFacts, State, Stored, Target, Transferred, write
from straxflow.reports.disks import Growth
from straxflow.reports.verdict import Check, Verdict, failed, ok, reach
from straxflow.settings import settings_digest
from straxflow.transport.store import Space
from straxflow.versions import main as versions_main

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site with its folders made, and a database that is away."""
    monkeypatch.setenv("STRAXFLOW_CAMPAIGN", "online")
    monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "site": "here",
        "folders": {name: str(tmp_path / name) for name in ("state", "live", "staging")},
        "store": {"folder": str(tmp_path / "store"), "min_free_gb": 0},
        "daq": {"host": "daq", "folder": str(tmp_path)},
        "rundb": {"uri": f"mongodb://127.0.0.1:{port}/", "timeout_s": 0.2},
        "runs": {"min_run_number": 1},
        "products": {"raw_records": {"from": "live"}, "events": {"from": "raw_records"}},
    }
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(settings))
    found = Site(load(settings), "online", "none", "site.yaml")
    init_folders(found.config, found.state)
    monkeypatch.chdir(tmp_path)
    return found


def facts(state: State, number: int, mode: str = "bg") -> str:
    run = f"{number:06d}"
    (state.run(run) / "live").mkdir(parents=True)
    end = START + timedelta(seconds=10)
    write(state.run(run) / RunFacts.name, RunFacts(run=run, number=number, start=START, end=end, mode=mode))
    return run


def processed(site: Site, run: str, records_out: int = 100, settings: str | None = None) -> None:
    target = Target(folder="f", lineage_hash="h", chunks=1, records=1, bytes=2_000_000, files=1)
    receipt = Processed(
        run=run, product="raw_records", source="live", targets={"raw_records": target},
        settings=settings or settings_digest(site.config, "raw_records"),
        records_in=100, records_out=records_out, dead_time_ns=250_000_000,
        host="h", seconds=1, cpu_seconds=1, peak_rss_mb=1,
    )  # fmt: skip
    path = site.state.path(run, "raw_records", Processed)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, receipt)


def straxflow(*words: str) -> int:
    return main([words[0], "--configfile", "site.yaml", *words[1:]])


def status(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert straxflow("status", "--json", *words) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_help_has_an_example_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["init"], ["check"], ["status"], ["versions"], ["config"]):
        with pytest.raises(SystemExit) as ended:
            main([*words, "--help"])
        assert ended.value.code == 0
        text = capsys.readouterr().out
        assert "example" in text
        assert "--profile" in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--configfile a.yaml b.yaml status 000932", "--configfile a.yaml --configfile b.yaml status 000932"),
        ("status --configfiles a b 000932 --json", "status --configfile a b 000932 --json"),
        ("status 932 --configfile a.yaml b.json", "status 932 --configfile a.yaml --configfile b.json"),
        ("--profile demo status a.yaml", "--profile demo status a.yaml"),
        ("status --configfile", "status --configfile"),
    ],
)
def test_config_files_never_swallow_the_command(words: str, expected: str) -> None:
    assert _config_files_apart(words.split()) == expected.split()


def test_usage_and_config_errors_are_2_and_have_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ([], ["stauts"], ["status", "--jsn"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
    capsys.readouterr()
    assert main(["--profile", "stomboot", "check"]) == 2
    assert "did you mean 'stoomboot'?" in capsys.readouterr().err
    (tmp_path / "bad.yaml").write_text("sight: a\n")
    assert main(["check", "--configfile", str(tmp_path / "bad.yaml")]) == 2
    assert "sight: unknown key, did you mean 'site'?" in capsys.readouterr().err


def test_profile_before_or_after_the_command_or_from_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRAXFLOW_CAMPAIGN", "online")
    for words in (["--profile", "stoomboot", "config"], ["config", "--profile", "stoomboot", "--campaign", "v5"]):
        assert main(words) == 0
        assert "site: stoomboot" in (shown := capsys.readouterr().out)
    assert "campaign v5" in shown
    monkeypatch.setenv("SNAKEMAKE_PROFILE", "stoomboot")
    assert main(["config"]) == 0
    assert "site: stoomboot" in capsys.readouterr().out
    monkeypatch.delenv("SNAKEMAKE_PROFILE")
    assert main(["config"]) == 0
    assert "site: demo" in capsys.readouterr().out


def test_a_profiles_own_config_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str], site: Site) -> None:
    profile = tmp_path / "profile"
    profile.mkdir()
    own = {
        "configfile": str(tmp_path / "site.yaml"),
        "config": {"head_node": ["transfer"], "store": {"min_free_gb": 7}},
    }
    (profile / "config.yaml").write_text(yaml.safe_dump(own))
    assert main(["--profile", str(profile), "config"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["head_node"] == ["transfer"]
    assert shown["store"]["min_free_gb"] == 7
    assert shown["store"]["folder"] == str(tmp_path / "store")


def test_config_doc_and_schema_need_no_site(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--doc", "--profile", "nonesuch"]) == 0
    assert capsys.readouterr().out.startswith("# Configuration")
    assert main(["config", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Config"


def test_the_command_starts_fast_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, straxflow.cli; print(sorted({'pydantic', 'pymongo', 'strax', 'numpy', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_status_without_database_tells_every_state(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    state = site.state
    fresh = facts(state, 1)
    lossy = facts(state, 2)
    processed(site, lossy, records_out=90, settings="other")
    broken = facts(state, 3)
    attempt = AttemptFile.start(state, broken, "live", "transfer", "b", "logs/x.log")
    attempt.end("damaged", "chunk 000001: truncated\nby 3 bytes")
    busy = facts(state, 4)
    write_claim(state, ClaimFile(run=busy, token=1, batch="b", owner=Owner.current().as_dict()))
    AttemptFile.start(state, busy, "live", "transfer", "b", "logs/y.log")
    gone = facts(state, 5)
    dead = {**Owner.current().as_dict(), "start": 1}
    write_claim(state, ClaimFile(run=gone, token=1, batch="b", owner=dead))
    left = AttemptFile.start(state, gone, "live", "transfer", "b", "logs/z.log")
    left.attempt = left.attempt.model_copy(update={"owner": dead})
    left._write()
    afar = facts(state, 6)
    write_claim(state, ClaimFile(run=afar, token=1, batch="b", owner={**dead, "host": "elsewhere"}))
    (state.run("000007")).mkdir()
    (state.run("000007") / "run.json").write_text("{")

    told = status(capsys)
    assert "does not answer" in told["rundb"]["problem"]
    assert told["states"] == {"pending": 4, "damaged": 2, "working": 1}
    runs = {run["run"]: run for run in told["runs"]}
    assert runs[fresh]["products"][0] == {
        "name": "live", "reached": None, "bytes": 0, "records_in": None, "records_out": None,
        "dead_time_ns": 0, "outdated": False, "problem": None, "notes": [],
    }  # fmt: skip
    raw = runs[lossy]["products"][1]
    assert raw["reached"] == "processed"
    assert raw["notes"] == [
        "raw_records: 10 of 100 records lost, dead time 0.25 s",
        "raw_records: outdated (made with other settings)",
    ]
    assert runs[broken]["reason"].startswith("transfer of live: chunk 000001: truncated")
    assert runs[broken]["log"] == str(state.folder / "logs/x.log")
    assert runs[busy]["holder"]["life"] == "alive"
    assert runs[busy]["reason"].startswith("transfer of live for ")
    assert runs[gone]["holder"]["life"] == "dead"
    assert "interrupted" in runs[gone]["reason"]
    assert runs[afar]["holder"]["life"] == "unknown"
    assert "not a valid receipt" in runs["000007"]["reason"]

    assert straxflow("status") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "told without the run database" in lines[1]
    row = next(line for line in lines if line.startswith(broken))
    assert "truncated by 3 bytes" in row
    assert str(state.folder / "logs/x.log") in row
    assert all(line == line.rstrip() for line in lines)

    assert straxflow("status", "3") == 0
    assert "live transfer: damaged" in capsys.readouterr().out
    assert straxflow("status", "99") == 1


def test_status_shows_the_newest_and_what_failed_before(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [facts(site.state, number) for number in range(1, 41)]
    AttemptFile.start(site.state, runs[0], "live", "transfer", "b", "l").end("failed", "no disk")
    assert straxflow("status") == 0
    out = capsys.readouterr().out
    assert runs[-1] in out
    assert "transfer of live: no disk" in out
    assert "\n" + runs[5] not in out
    assert "9 older runs are not shown" in out
    assert straxflow("status", "--all") == 0
    assert runs[5] in capsys.readouterr().out


def test_status_of_an_unmounted_disk_is_no_site_without_runs(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    (site.state.folder / ".straxflow.json").unlink()
    assert straxflow("status") == 1
    assert "mounted" in capsys.readouterr().err


def test_init_makes_the_folders_though_the_database_is_away(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(f"folders: {{live: {tmp_path}/new}}\n")
    assert main(["init", "-n", "--configfile", "site.yaml", "other.yaml"]) == 1
    told = capsys.readouterr()
    assert f"would make live: {tmp_path}/new" in told.out
    assert not (tmp_path / "new").exists()
    assert main(["init", "--configfile", "site.yaml", "other.yaml"]) == 1
    told = capsys.readouterr()
    assert f"made live: {tmp_path}/new" in told.out
    assert "does not answer" in told.err
    assert straxflow("init") == 1
    assert "all there already" in capsys.readouterr().out


def test_one_hung_check_holds_up_nothing() -> None:
    import threading

    def fail() -> list[Verdict]:
        raise StepFailed("no disk")

    def hang() -> list[Verdict]:
        threading.Event().wait(20)
        return []

    def crash() -> list[Verdict]:
        raise KeyError("x")

    made = [Check("a", hang, 0.2), Check("b", lambda: [ok("b", "fine")]), Check("c", fail), Check("d", crash)]
    verdicts = list(reach(made))
    assert [(v.part, v.level) for v in verdicts] == [("a", "FAILED"), ("b", "ok"), ("c", "FAILED"), ("d", "FAILED")]
    assert "no answer within 0.2 s" in verdicts[0].text
    assert verdicts[2] == failed("c", "no disk")
    assert "KeyError" in verdicts[3].text


def test_days_left_by_what_came_to_stay(site: Site) -> None:
    run = facts(site.state, 1)
    (site.state.run(run) / "raw_records").mkdir()
    made = datetime.now(UTC) - timedelta(days=2)
    stored = Stored(
        run=run, product="raw_records", site="here", location="x", folders=[], bytes=4_000_000, seconds=1, made=made
    )
    write(site.state.path(run, "raw_records", Stored), stored)
    old = facts(site.state, 2)
    received = Transferred(
        run=old, folder="x", source="x", host="x", algorithm="xxh128", files=[], bytes=10**12, seconds=1,
        made=datetime.now(UTC) - timedelta(days=8),
    )  # fmt: skip
    write(site.state.path(old, "live", Transferred), received)
    growth = Growth(site.config, site.state)
    assert growth.by_kind()["store"] == pytest.approx(2_000_000, rel=1e-3)
    assert growth.by_kind()["live"] == 0
    # all folders are on one disk here, so each sees the growth of all
    assert growth.on(site.config.folders.live) == pytest.approx(2_000_000, rel=1e-3)
    verdict = check_disks._room(Disk("store", "x", Space(10**12, 0), Room(min_free_gb=1)), 2e11)
    assert verdict.level == "warning"
    assert "5 days" in verdict.text
    verdict = check_disks._room(Disk("live", "x", Space(10**12, 99 * 10**12), Room()), 0)
    assert (verdict.part, verdict.level) == ("folder live", "FAILED")
    assert "disks.live.max_used_percent is 98: nothing is claimed" in str(verdict.remedy)


def test_rsync_versions() -> None:
    shown = "rsync  version 3.2.7  protocol version 31\nChecksum list:\n    xxh128 xxh3\n"
    assert check_programs._rsync_verdict("rsync", "", shown).level == "ok"
    assert check_programs._rsync_verdict("rsync", "", shown.replace("3.2.7", "3.1.3")).level == "FAILED"
    assert check_programs._rsync_verdict("rsync", "", shown.replace("xxh128", "md5")).level == "FAILED"
    assert check_programs._rsync_verdict("rsync", "", "openrsync: protocol version 29").level == "FAILED"


@pytest.mark.parametrize(
    "profile",
    [
        {"default-resources": {"slurm_partition": "short"}, "set-resources": {"process": {"slurm_partition": "long"}}},
        {"default-resources": ["slurm_partition=short", "mem_mb=3"], "set-resources": ["process:slurm_partition=long"]},
    ],
)
def test_partitions_in_a_profile(profile: dict[str, Any]) -> None:
    assert check_programs._partitions(profile) == {"short", "long"}
    assert check_programs._partitions({}) == set()


def test_an_index_serves_backwards_and_by_its_beginning() -> None:
    class Runs:
        def index_information(self) -> dict[str, Any]:
            return {
                "_id_": {"key": [("_id", 1)]},
                "a": {"key": [("number", 1)]},
                "b": {"key": [("processing_status", -1), ("number", 1)]},
                "c": {"key": [("data.host", 1), ("data.type", 1), ("number", -1), ("mode", 1)]},
                "t": {"key": [("comments", "text")]},
            }

    class Db:
        runs = Runs()

    lacking = [indexes.describe(keys) for keys in indexes.missing(Db(), "v5")]  # type: ignore[arg-type]
    assert lacking == [
        "processing_status.status + number (newest first)",
        "tags.name + number (newest first)",
        "straxflow.v5.claim.batch",
        "straxflow.v5.due",
        "straxflow.v5.processing_status.status + number (newest first)",
        "straxflow.v5.processing_status + number (newest first)",
    ]


def test_versions(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert straxflow("versions", "straxflow", "nonesuch") == 0
    out = capsys.readouterr().out
    assert sys.executable in out
    assert "nonesuch   not installed" in out
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (tmp_path / "other.yaml").write_text(f"strax: {{python: [{python}]}}\n")
    assert main(["versions", "--json", "--configfile", "site.yaml", "other.yaml"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {p["name"] for p in told["strax"]} >= {"python", "strax", "numpy"}
    (tmp_path / "other.yaml").write_text("strax: {python: [/none/python]}\n")
    assert main(["versions", "--configfile", "site.yaml", "other.yaml"]) == 1
    told = capsys.readouterr()
    assert "snakemake" in told.out
    assert "cannot run '/none/python'" in told.err
    monkeypatch.setattr(sys, "argv", ["versions", "straxflow"])
    versions_main()
    assert [p["name"] for p in json.loads(capsys.readouterr().out)] == ["python", "straxflow"]


def test_output_into_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m straxflow.cli config --doc | head -1"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(["bash", "-c", command], cwd=root, capture_output=True, text=True, env=os.environ)
    assert (done.stdout, done.stderr) == ("# Configuration\n", "")


def test_status_takes_runs_in_any_form(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (898, 900, 932, 950):
        facts(site.state, number)
    (tmp_path / "runs.txt").write_text("# the good ones\n932\n")
    for words, expected in (
        (["900-949"], ["000932", "000900"]),
        (["898", "@runs.txt", "000932"], ["000932", "000898"]),
    ):
        assert straxflow("status", "--json", *words) == 0
        assert [run["run"] for run in json.loads(capsys.readouterr().out)["runs"]] == expected
    assert straxflow("status", "0932") == 2
    assert "did you mean '000932'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("limit", "minutes"), [("30:00", 30), ("4:00:00", 240), ("1-12:00:00", 2160), ("0:30", 0.5), ("infinite", None)]
)
def test_time_limits_of_partitions(limit: str, minutes: float | None) -> None:
    assert check_programs.minutes_of(limit) == minutes
