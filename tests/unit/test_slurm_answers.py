"""What Slurm's commands answer, as far as no real Slurm says it here on demand."""

from pathlib import Path

import pytest

from straxflow.slurm import cancel_jobs, known_jobs, verdict_on


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Slurm with a job whose name is no text, beside one of ours; gives the file of what was cancelled."""
    cancelled = tmp_path / "cancelled"
    name = r"caf\351"
    for command, does in {
        "squeue": f"printf '6 {name}\\n7 straxflow_b_x\\n'",
        "scontrol": f"printf 'JobId=6 JobName={name} JobState=CANCELLED Reason=None'",
        "scancel": f'echo "$@" >{cancelled}',
    }.items():
        script = tmp_path / command
        script.write_text(f"#!/bin/sh\n{does}\n")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return cancelled


def test_a_job_name_that_is_no_text_is_in_nobodys_way(odd: Path) -> None:
    assert cancel_jobs("b")
    assert odd.read_text() == "7\n"
    assert known_jobs("straxflow_b_x") is not None
    verdict = verdict_on("6")
    assert verdict is not None
    assert verdict.cause == "cancelled"
