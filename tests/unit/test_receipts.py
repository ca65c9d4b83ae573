import json
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from straxflow.errors import Damaged, StepFailed
from straxflow.receipts import SCHEMA, Checksums, RunFacts, State, Stored, read, write

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def facts(run: str = "000001") -> RunFacts:
    return RunFacts(run=run, number=1, start=NOW, end=NOW + timedelta(seconds=90), mode="background", made=NOW)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.run("000001").mkdir(parents=True)
    write(state.run("000001") / "run.json", facts())
    assert state.facts("000001") == facts()
    assert facts().seconds == 90
    assert list(state.all_runs()) == ["000001"]
    assert [p.name for p in state.run("000001").iterdir()] == ["run.json"]


def test_a_receipt_with_the_same_content_is_touched_only(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write(path, facts())
    os.utime(path, (1, 1))
    inode = path.stat().st_ino
    write(path, facts())
    assert path.stat().st_ino == inode
    assert path.stat().st_mtime > 1


def test_none_is_not_an_error_to_find(tmp_path: Path) -> None:
    assert State(tmp_path).find("000001", "raw", Stored) is None
    assert list(State(tmp_path).all_runs()) == []
    with pytest.raises(StepFailed, match=r"is missing; make it again: snakemake .* runs/000001/raw/stored"):
        State(tmp_path).get("000001", "raw", Stored)


@settings(deadline=None)
@given(st.integers(0, 400))
def test_a_cut_receipt_is_damaged(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "run.json"
    text = facts().model_dump_json(indent=1)
    path.write_text(text[: min(length, len(text) - 1)])
    with pytest.raises(Damaged, match=re.escape(str(path)) + ".*remove it and name it as a target"):
        read(path, RunFacts)


def test_of_another_run(tmp_path: Path) -> None:
    write(tmp_path / "run.json", facts("000002"))
    with pytest.raises(Damaged, match="is the receipt of run 000002, expected run 000001"):
        read(tmp_path / "run.json", RunFacts, "000001")


@pytest.mark.parametrize("extra", [{}, {"something": "new"}])
def test_of_a_later_version(tmp_path: Path, extra: dict[str, str]) -> None:
    newer = json.loads(facts().model_dump_json()) | {"schema_version": SCHEMA + 1} | extra
    (tmp_path / "run.json").write_text(json.dumps(newer))
    with pytest.raises(Damaged, match=f"schema version {SCHEMA + 1}.*upgrade"):
        read(tmp_path / "run.json", RunFacts)


def test_unknown_keys_and_naive_times_are_refused(tmp_path: Path) -> None:
    for change in ({"surplus": 1}, {"start": "2026-01-02T03:04:05"}):
        (tmp_path / "run.json").write_text(json.dumps(json.loads(facts().model_dump_json()) | change))
        with pytest.raises(Damaged, match=next(iter(change))):
            read(tmp_path / "run.json", RunFacts)


NAMES = st.text(st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="/"), min_size=1).filter(
    lambda name: name not in (".", "..")
)


@settings(deadline=None)
@given(st.dictionaries(NAMES, st.tuples(st.integers(0, 2**50), st.binary(min_size=16, max_size=16)), max_size=8))
def test_checksums_keep_any_manifest(files: dict[str, tuple[int, bytes]]) -> None:
    rows = sorted((f"000001-raw-x/{name}", size, digest.hex()) for name, (size, digest) in files.items())
    sums = Checksums(
        run="000001", product="raw", algorithm="xxh128", files=rows, list_file="xxh128sums.txt", seconds=0, made=NOW
    )
    again = Checksums.model_validate_json(sums.model_dump_json())
    assert again == sums
    assert again.manifest.rows == rows
    assert again.manifest_of("000001-raw-x") == again.manifest.below("000001-raw-x")
    assert len(again.manifest_of("000001-raw-x").files) == len(rows)
    assert again.manifest_of("000001-raw").files == ()
