"""What a watcher decides, without any part of it running."""

from __future__ import annotations

import configparser
import logging
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from straxflow.batch import BATCH, OWNER
from straxflow.cli.main import _config_files_apart, parser_of
from straxflow.config.load import ROOT
from straxflow.config.profile import Source
from straxflow.config.sections.watch import Watch
from straxflow.errors import ConfigError
from straxflow.fsio import INCOMING
from straxflow.orphans import processes_of, stop_processes
from straxflow.owner import Owner
from straxflow.receipts import State
from straxflow.transport import open_store
from straxflow.watch import loop
from straxflow.watch.decide import Action, End, Facts, Seen, Start, Stop, Tell, decide, room
from straxflow.watch.hold import FIRST_S, LONGEST_S, Hold
from straxflow.watch.housekeeping import DAY_S, _prune_batches, _reap_partial
from straxflow.watch.loop import Watcher
from straxflow.watch.reading import Reading
from straxflow.watch.systemd import command, tell_systemd, unit
from straxflow.watch.words import Troubles

LIMITS = Watch(max_invocations=3, stall_s=100, grace_s=30)
WORKS = Seen("a", newest=7)


@pytest.mark.parametrize(
    ("facts", "actions"),
    [
        (Facts(due=True), [Start()]),
        (Facts(due=False), []),
        (Facts(due=None), []),
        (Facts(due=True, holds=False), []),
        (Facts([WORKS], due=True), [Start()]),
        (Facts([WORKS, Seen("b", newest=9)], due=True), [Start(newer_than=9)]),
        (Facts([WORKS, Seen("b", newest=None)], due=True), [Start(newer_than=7)]),
        (Facts([WORKS, Seen("b", claims=True)], due=True), []),
        (Facts([WORKS, WORKS, WORKS], due=True), []),
        # it ends
        (Facts(due=False, once=True), [End()]),
        (Facts(due=None, once=True), []),
        (Facts([WORKS], due=False, once=True), []),
        (Facts(due=True, stop=Stop.DRAIN), [End()]),
        (Facts([WORKS], due=True, stop=Stop.DRAIN), [Tell("a", "finish", "asked to end")]),
        (Facts([Seen("a", told="finish")], stop=Stop.DRAIN), []),
        (Facts([Seen("a", told="finish")], stop=Stop.NOW), [Tell("a", "stop", "asked to stop at once")]),
        (Facts([Seen("a", told="stop", told_s=20)], stop=Stop.NOW), []),
        (Facts([Seen("a", told="stop", told_s=31)], stop=Stop.NOW), [Tell("a", "kill", "it did not stop within 30 s")]),
        (Facts([Seen("a", told="kill", told_s=99)], stop=Stop.NOW), []),
        # it hangs
        (Facts([Seen("a", still_s=99)]), []),
        (Facts([Seen("a", still_s=101)]), [Tell("a", "stop", "it hangs: nothing moved and no job ran for 101 s")]),
        (
            Facts([Seen("a", told="finish", still_s=101)], stop=Stop.DRAIN),
            [Tell("a", "stop", "it hangs: nothing moved and no job ran for 101 s")],
        ),
        (Facts([Seen("a", still_s=200, told="stop", told_s=31)]), [Tell("a", "kill", "it did not stop within 30 s")]),
    ],
)  # fmt: skip
def test_decisions(facts: Facts, actions: list[Action]) -> None:
    assert decide(facts, LIMITS) == actions


def test_with_one_invocation_at_a_time_none_is_kept_for_newer_runs() -> None:
    limits = LIMITS.model_copy(update={"max_invocations": 1})
    assert room([], limits) == Start()
    assert room([WORKS], limits) is None


def test_pauses_double_and_end_with_the_first_claim() -> None:
    clock = [0.0]
    hold = Hold(lambda: clock[0])
    assert not hold.keeps("000001")
    assert hold.begin("000001") == FIRST_S
    assert hold.keeps("000001")
    assert not hold.keeps("000002")  # another run need not wait for it
    clock[0] = FIRST_S
    assert not hold.keeps("000001")
    assert hold.begin() == 2 * FIRST_S
    assert hold.keeps("000002")
    assert [hold.begin() for _ in range(9)][-1] == LONGEST_S
    hold.end()
    assert not hold.keeps("000002")
    assert hold.begin() == FIRST_S


def test_a_trouble_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    troubles = Troubles()
    logging.getLogger("straxflow").propagate = True
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            troubles.there("db", f"it is away ({troubles})", "waiting")
        troubles.there("db", "it refuses", "waiting")
        assert list(troubles.lasting(0, ("db",))) == ["it refuses"]
        assert list(troubles.lasting(0, ("db",))) == []
        troubles.over("db", "it is back")
        troubles.over("db", "it is back")
    assert [record.message.partition(" (")[0] for record in caplog.records] == [
        "it is away", "it refuses; waiting", "it is back"
    ]  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Source:
    settings = {
        "site": "here",
        "folders": {name: str(tmp_path / name) for name in ("state", "live", "staging")},
        "store": {"folder": str(tmp_path / "store")},
        "daq": {"host": "daq", "folder": str(tmp_path)},
        "runs": {"min_run_number": 3},
        "products": {"raw_records": {"from": "live"}},
    }
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(settings))
    profile = {"configfile": str(tmp_path / "site.yaml"), "cores": 3, "config": {"head_node": ["transfer"]}}
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "config.yaml").write_text(yaml.safe_dump(profile))
    return Source(str(tmp_path / "profile"))


def test_the_configuration_is_read_again_and_the_last_good_one_kept(source: Source, tmp_path: Path) -> None:
    said: list[str] = []
    reading = Reading(source, {"poll_s": 5.0}, said.append)
    assert reading.config.watch.poll_s == 5
    file = tmp_path / "site.yaml"
    good = file.read_text()

    def change(text: str) -> None:
        file.write_text(text)
        os.utime(file, ns=(time.time_ns(), time.time_ns()))
        reading.again()

    reading.again()
    assert said == []
    change(good.replace("min_run_number", "min_run_nummer"))
    reading.again()
    assert len(said) == 1
    assert "unknown key, did you mean 'min_run_number'?" in said[0]
    change(good.replace("site: here", "site: there"))
    assert "that takes a restart of the watcher" in said[1]
    file.unlink()
    reading.again()
    assert "does not exist" in said[2]
    assert reading.config.runs.min_run_number == 3
    change(good.replace("min_run_number: 3", "min_run_number: 4"))
    assert said[3:] == ["the configuration changed: the new one is in force"]
    assert (reading.config.runs.min_run_number, reading.config.watch.poll_s) == (4, 5)


def test_an_invocation_gets_its_own_copy_of_profile_and_configuration(source: Source, tmp_path: Path) -> None:
    reading = Reading(source, {}, print)
    folder = tmp_path / "one"
    folder.mkdir()
    reading.write(folder, most=4)
    profile = yaml.safe_load((folder / "config.yaml").read_text())
    assert profile["configfile"] == str(folder / "settings.yaml")
    assert (profile["cores"], profile["nolock"], profile["ignore-incomplete"]) == (3, True, True)
    assert "config" not in profile
    made = Source(str(folder)).load()
    assert made.claim.max_runs == 4
    assert made.head_node == ["transfer"]
    assert (folder / "settings.yaml").stat().st_mode & 0o777 == 0o600
    reading.write(folder)
    assert Source(str(folder)).load() == reading.config


def test_only_the_files_of_old_ended_invocations_go(tmp_path: Path) -> None:
    state = State(tmp_path)
    ids = [f"2026010{day}T000000_abcdef" for day in range(1, 6)]
    for batch in ids:
        for name in (f"batches/{batch}.json", f"logs/batches/{batch}.log", f"logs/batches/{batch}.snakemake.log"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
    (tmp_path / "batches" / "notes.json").touch()
    assert _prune_batches(state, alive=[ids[0]], keep=2) == 2
    assert sorted(p.name for p in (tmp_path / "batches").iterdir()) == [
        f"{ids[0]}.json", f"{ids[3]}.json", f"{ids[4]}.json", "notes.json"
    ]  # fmt: skip
    assert len(list((tmp_path / "logs/batches").iterdir())) == 6


def test_partial_copies_that_may_serve_are_kept(tmp_path: Path) -> None:
    here = Owner.current()
    dead = Owner(here.host, here.boot, here.pid, here.start - 1)

    def partial(name: str, owner: Owner, age_s: float = 0) -> str:
        folder = tmp_path / f"{INCOMING}{name}~{owner.token()}"
        (folder / "sub").mkdir(parents=True)
        os.utime(folder, (time.time() - age_s,) * 2)
        return folder.name

    kept = {partial("000001", dead), partial("000002", here), partial("000002", here, 2 * DAY_S)}
    (tmp_path / "000003").mkdir()
    partial("000003", dead)  # its run is there
    partial("000004", dead, 2 * DAY_S)  # nobody came for it
    assert _reap_partial(tmp_path) == 2
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "000003"}
    partial("000003", dead)
    assert len(open_store(tmp_path, None, []).reap(only_replaced=True)) == 1
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "000003"}
    assert len(open_store(tmp_path, None, []).reap()) == 1


def test_a_bug_ends_no_watcher(
    source: Source, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watcher = Watcher(Reading(source, {}, print), "online")
    monkeypatch.setattr(watcher, "_on_signals", lambda: None)
    monkeypatch.setattr(watcher, "_end", lambda: 0)
    monkeypatch.setattr(loop, "BUG_S", 0.01)
    rounds = iter([ValueError("odd"), False, True])

    def one() -> bool:
        result = next(rounds)
        if isinstance(result, Exception):
            raise result
        watcher._wake.set()
        return result

    monkeypatch.setattr(watcher, "_round", one)
    logging.getLogger("straxflow").propagate = True
    assert watcher.run() == 0
    assert "a bug: this round came to nothing" in caplog.text
    # asked to end, it leaves the rest to a later one
    rounds = iter([ValueError("odd")])
    watcher.stop = Stop.DRAIN
    assert watcher.run() == 1


def test_processes_of_a_dead_invocation_are_told_apart() -> None:
    here = Owner.current()
    dead = Owner(here.host, here.boot, here.pid, here.start - 1)
    batch, other = "20260101T000000_aaaaaa", "20260101T000000_aaaaaab"
    marks = [
        {BATCH: batch, OWNER: dead.token()},
        {BATCH: other, OWNER: dead.token()},
        {BATCH: batch, OWNER: here.token()},
        {BATCH: batch},  # of a person who asks for its report
    ]
    sleeps = [subprocess.Popen(["sleep", "60"], env={**os.environ, **mark}, start_new_session=True) for mark in marks]
    orphan, *others = sleeps
    try:
        assert processes_of(batch, dead) == [orphan.pid]
        assert sorted(processes_of(batch)) == sorted(p.pid for p in (sleeps[0], sleeps[2], sleeps[3]))
        assert stop_processes(batch, here) == 0  # it lives
        assert stop_processes(batch, dead) == 1
        assert orphan.wait(5) < 0
        assert [process.poll() for process in others] == [None] * 3
    finally:
        for process in sleeps:
            process.kill()
            process.wait()


def check_unit(text: str) -> list[str]:
    """A unit that systemd takes, with a command line that straxflow takes; its words."""
    parsed = configparser.ConfigParser(interpolation=None, strict=True)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read_string(text)
    assert parsed["Service"]["KillMode"] == "mixed"
    assert parsed["Service"]["Restart"] == "always"
    assert parsed["Unit"]["StartLimitIntervalSec"] == "0"
    program, *words = shlex.split(parsed["Service"]["ExecStart"].replace("%%", "%").replace("$$", "$"))
    words = _config_files_apart(words)
    assert parser_of(words).parse_args(words).command == "watch"
    return [program, *words]


def test_the_unit_of_systemd(tmp_path: Path) -> None:
    odd = Source("stoomboot", (Path("/some where/50%.yaml"),))
    text = unit("xams", odd, "v5")
    assert check_unit(text) == command(odd, "v5")
    assert f"WorkingDirectory={ROOT}" in text
    text = unit("xams", Source("stoomboot"), "online")
    assert check_unit(text)[1:] == ["--profile", "stoomboot", "watch"]
    if shutil.which("systemd-analyze"):
        file = tmp_path / "straxflow.service"
        file.write_text(text.replace(command(odd, "v5")[0], sys.executable))
        done = subprocess.run(["systemd-analyze", "verify", file], capture_output=True, text=True, timeout=60)
        assert str(file) not in done.stderr, done.stderr


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell_systemd("READY=1")  # nobody wants to know
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "s"))
        tell_systemd("READY=1")
        assert listener.recv(100) == b"READY=1"
    tell_systemd("WATCHDOG=1")  # nobody listens any more


def test_the_page_shows_what_is_there() -> None:
    page = (ROOT / "docs" / "unattended.md").read_text(encoding="utf-8")
    blocks = page.split("```")
    shown = next(block for block in blocks if block.startswith("ini\n")).removeprefix("ini\n")
    real = unit("stoomboot", Source("stoomboot"), "online")
    assert shown == real.replace(str(ROOT), "/data/straxflow").replace(sys.prefix, "/data/straxflow/.venv")
    (cron,) = [line for line in page.splitlines() if line.startswith("*/")]
    *_, line = cron.split(maxsplit=5)
    folder, words = line.split(" && ")
    assert folder == "cd /data/straxflow"
    words = words.partition(" >")[0]
    arguments = shlex.split(words)
    assert arguments[0].endswith(".venv/bin/straxflow")
    assert parser_of(arguments[1:]).parse_args(arguments[1:]).once


def test_a_profile_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    from straxflow.cli import main

    assert main(["--profile", "none", "watch"]) == 2
    assert "it starts snakemake with a profile" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="no profile 'nosuch'"):
        Reading(Source("nosuch"), {}, print)
    assert main(["watch", "--poll", "0"]) == 2
