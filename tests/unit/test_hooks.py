import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from straxflow.config import Config, load
from straxflow.errors import ConfigError
from straxflow.hooks import SAID, Facts, run_hook
from straxflow.owner import process_is_gone

FACTS = Facts(
    state="failed", reason="process of raw: it's \"bad\"; $(touch x)\nand more\0", run="000007", number=7, mode="led",
    step="process", product="raw", log="/state/logs/000007/raw.process.log", batch="b1", count=2,
)  # fmt: skip


def config(tmp_path: Path, **hooks: Any) -> Config:
    settings = {
        "site": "here",
        "folders": {name: str(tmp_path / name) for name in ("state", "live", "staging")},
        "store": {"folder": str(tmp_path / "store")},
        "daq": {"host": "daq", "folder": str(tmp_path / "daq")},
        "runs": {"min_run_number": 1},
        "products": {"raw": {"from": "live"}},
        "hooks": hooks,
    }
    return load(settings, tmp_path)


def note(tmp_path: Path, text: str) -> str:
    """A program that does something."""
    script = tmp_path / "note.py"
    script.write_text(f"import json, os, sys, time\n{text}")
    return f"{sys.executable} {script}"


@pytest.mark.fault(
    group="security",
    broken="reasons and names that a shell would obey, told to a hook",
    left="one word each, as it is",
    next="nothing to do",
)
def test_words_and_json_reach_the_program_and_no_shell_sees_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRAXFLOW_RUNDB_PASSWORD", "secret")
    out = tmp_path / "out"
    text = f"json.dump([sys.argv[1:], json.load(sys.stdin), dict(os.environ)], open({str(out)!r}, 'w'))"
    program = (
        note(tmp_path, text) + " {site} run{number:06d} '{mode} {step}' {reason} {state}{count} {batch} {log} {{}}"
    )
    assert run_hook(config(tmp_path, on_failure=program), "on_failure", FACTS)
    words, told, environment = json.loads(out.read_text())
    assert words == [
        "here", "run000007", "led process", "process of raw: it's \"bad\"; $(touch x) and more ", "failed2", "b1",
        FACTS.log, "{}",
    ]  # fmt: skip
    assert told.items() >= {"kind": "on_failure", "run": "000007", "number": 7, "product": "raw", "runs": []}.items()
    assert "secret" not in environment.values()
    assert not list(tmp_path.glob("**/x"))


def test_without_a_hook_nothing_happens(tmp_path: Path) -> None:
    assert not run_hook(config(tmp_path), "on_failure", FACTS)


def test_one_call_for_several(tmp_path: Path) -> None:
    out = tmp_path / "out"
    program = note(tmp_path, f"open({str(out)!r}, 'w').write(sys.stdin.read())")
    summary = Facts(state="failed", reason="2 runs failed")
    assert run_hook(config(tmp_path, on_stall=program + " {number} {run}"), "on_stall", summary, [FACTS, FACTS])
    assert [one["run"] for one in json.loads(out.read_text())["runs"]] == ["000007", "000007"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("print('words\\nof it'); sys.exit(3)", "exit code 3: words | of it"),
        ("os.kill(os.getpid(), 9)", "exit code -9"),
        ("print('y' * 1_000_000); sys.exit(1)", "exit code 1: " + "y" * 100),
        ("time.sleep(60)", "did not end within 0.5 s and was stopped"),
        ("sys.stdout.close(); os.close(1); os.close(2); time.sleep(60)", "did not end within 0.5 s and was stopped"),
        ("while True: print('more')", "did not end within 0.5 s and was stopped: more"),
    ],
)
def test_its_failure_is_logged_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, expected: str
) -> None:
    slow = "60" in text or "while" in text
    chosen = config(tmp_path, on_failure=note(tmp_path, text), timeout_s=0.5 if slow else 60)
    with caplog.at_level(logging.WARNING):
        assert not run_hook(chosen, "on_failure", FACTS)
    assert expected in caplog.text
    assert len(caplog.text) < SAID + 500


def test_a_program_that_is_not_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert not run_hook(config(tmp_path, on_failure="/no/such/program {run}"), "on_failure", FACTS)
    assert "cannot run '/no/such/program': No such file or directory" in caplog.text


def test_what_it_leaves_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    text = f"""
import subprocess
child = subprocess.Popen(["sleep", "300"], start_new_session=True)
open({str(mark)!r}, "w").write(str(child.pid))
"""
    began = time.monotonic()
    assert run_hook(config(tmp_path, on_failure=note(tmp_path, text), timeout_s=120), "on_failure", FACTS)
    assert time.monotonic() - began < 100
    subprocess.run(["kill", mark.read_text()], check=True)


def test_a_program_that_is_stopped_takes_its_children_with_it(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    text = f"""
import subprocess
child = subprocess.Popen(["sleep", "300"])
open({str(mark)!r}, "w").write(str(child.pid))
child.wait()
"""
    assert not run_hook(config(tmp_path, on_failure=note(tmp_path, text), timeout_s=3), "on_failure", FACTS)
    deadline = time.monotonic() + 20
    while not process_is_gone(int(mark.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("mail {who}", "unknown placeholder {who}; placeholders are {site}, {run}"),
        ("mail {run.__class__}", "unknown placeholder"),
        ("mail 'x", "No closing quotation"),
        ("mail {run", "expected '}' before end of string"),
        ("awk '{print $1}'", "unknown placeholder {print $1}"),
        ("mail {}", "unknown placeholder {}"),
        (" ", "is empty"),
    ],
)
def test_a_wrong_command_line_is_a_mistake_of_the_configuration(tmp_path: Path, command: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(tmp_path, on_stall=command)
    assert "hooks.on_stall: " in str(caught.value)
    assert problem.lower() in str(caught.value).lower()
