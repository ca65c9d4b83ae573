import json
from pathlib import Path
from typing import Any

import pytest

from straxflow.errors import Damaged, StepFailed
from straxflow.straxjob.validate import Coverage, check_strax_folder, differences, same_data

S = 1_000_000_000


def make(root: Path, n: tuple[int, ...] = (3, 0, 5), **changes: Any) -> Path:
    """Write a folder as strax 2.2 does: chunks of 10 s, none of them with a file if it is empty."""
    folder = root / "000932-peaks-abcdefghij"
    folder.mkdir(parents=True)
    chunks = []
    for i, count in enumerate(n):
        chunk: dict[str, Any] = {
            "chunk_i": i, "n": count, "start": 10 * S * i, "end": 10 * S * (i + 1), "run_id": "000932",
            "nbytes": 8 * count, "subruns": None,
        }  # fmt: skip
        if count:
            chunk |= {"filename": f"peaks-abcdefghij-{i:06d}", "filesize": 4 * count}
            (folder / chunk["filename"]).write_bytes(b"data" * count)
        chunks.append(chunk)
    metadata = {
        "run_id": "000932", "data_type": "peaks", "lineage_hash": "abcdefghij", "compressor": "blosc",
        "strax_version": "2.2.3", "writing_started": 1.0, "writing_ended": 2.0, "chunks": chunks,
    } | changes  # fmt: skip
    save(folder, {k: v for k, v in metadata.items() if v is not None})
    return folder


def save(folder: Path, metadata: dict[str, Any]) -> None:
    (folder / "peaks-abcdefghij-metadata.json").write_text(json.dumps(metadata))


def load(folder: Path) -> dict[str, Any]:
    metadata: dict[str, Any] = json.loads((folder / "peaks-abcdefghij-metadata.json").read_text())
    return metadata


def test_whole_folder_gives_facts(tmp_path: Path) -> None:
    facts = check_strax_folder(make(tmp_path), Coverage(0, 30 * S, S, S))
    assert (facts.run, facts.data_type, facts.lineage_hash) == ("000932", "peaks", "abcdefghij")
    assert (facts.n_chunks, facts.n_records, facts.start, facts.end) == (3, 8, 0, 30 * S)
    assert set(facts.files) == {
        "peaks-abcdefghij-000000", "peaks-abcdefghij-000002", "peaks-abcdefghij-metadata.json",
    }  # fmt: skip
    assert facts.bytes == sum(facts.files.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"writing_ended": None}, "did not finish"),
        ({"exception": "Traceback\nMemoryError: too big"}, "MemoryError: too big"),
        ({"chunks": []}, "no chunk"),
    ],
)
def test_unfinished_writing_fails_the_step(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StepFailed, match=message):
        check_strax_folder(make(tmp_path, **changes))


def test_no_metadata_fails_the_step(tmp_path: Path) -> None:
    folder = make(tmp_path)
    (folder / "peaks-abcdefghij-metadata.json").unlink()
    with pytest.raises(StepFailed, match="metadata"):
        check_strax_folder(folder)


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_unreadable_metadata_is_damage(tmp_path: Path, content: str) -> None:
    folder = make(tmp_path)
    (folder / "peaks-abcdefghij-metadata.json").write_text(content)
    with pytest.raises(Damaged, match="metadata"):
        check_strax_folder(folder)


@pytest.mark.parametrize(
    ("key", "value"), [("run_id", "000933"), ("data_type", "events"), ("lineage_hash", "xyz"), ("compressor", None)]
)
def test_metadata_of_something_else_is_damage(tmp_path: Path, key: str, value: str | None) -> None:
    with pytest.raises(Damaged, match=key):
        check_strax_folder(make(tmp_path, **{key: value}))


@pytest.mark.parametrize(
    ("chunk", "key", "value", "message"),
    [
        (1, "chunk_i", 4, "chunk 1 is missing or double, found 2"),
        (1, "chunk_i", 0, "chunk 1 is missing or double, found 0"),
        (1, "start", 11 * S, "chunk 1 starts at"),
        (1, "filename", "peaks-abcdefghij-000001", "no entries but names"),
        (2, "filename", None, "names no file"),
        (2, "filename", "elsewhere", "elsewhere of chunk 2 is missing"),
        (2, "filesize", 21, "has 20 bytes, expected 21"),
        (2, "end", 19 * S, "before it starts"),
        (2, "n", "many", "not as expected"),
    ],
)
def test_contradicting_chunks_are_damage(tmp_path: Path, chunk: int, key: str, value: Any, message: str) -> None:
    folder = make(tmp_path)
    metadata = load(folder)
    metadata["chunks"][chunk][key] = value
    if value is None:
        del metadata["chunks"][chunk][key]
    save(folder, metadata)
    with pytest.raises(Damaged, match=message):
        check_strax_folder(folder)


def test_files_missing_truncated_empty_or_surplus_are_damage(tmp_path: Path) -> None:
    first = "peaks-abcdefghij-000000"
    (make(tmp_path / "a") / first).unlink()
    (make(tmp_path / "b") / first).write_bytes(b"dat")
    (make(tmp_path / "d") / "stray").touch()
    unrecorded = make(tmp_path / "c")
    metadata = load(unrecorded)
    del metadata["chunks"][0]["filesize"]
    save(unrecorded, metadata)
    check_strax_folder(unrecorded)
    (unrecorded / first).write_bytes(b"")
    for name, message in {"a": "missing", "b": "3 bytes", "c": "0 bytes", "d": "stray"}.items():
        with pytest.raises(Damaged, match=message):
            check_strax_folder(tmp_path / name / "000932-peaks-abcdefghij")


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (0, 32, "ends 2.000 s too early"),
        (0, 28, "ends 2.000 s too late"),
        (-2, 30, "starts 2.000 s too late"),
        (2, 30, "starts 2.000 s too early"),
    ],
)
def test_coverage(tmp_path: Path, start: int, end: int, message: str) -> None:
    folder = make(tmp_path)
    check_strax_folder(folder, Coverage(start * S, end * S, 2 * S, 2 * S))
    with pytest.raises(StepFailed, match=message):
        check_strax_folder(folder, Coverage(start * S, end * S, S, S))


def test_same_data_ignores_times_only(tmp_path: Path) -> None:
    a, b = load(make(tmp_path / "a")), load(make(tmp_path / "b", writing_started=5.0, writing_ended=9.0))
    assert same_data(a, b)
    del b["chunks"][0]["filesize"]
    assert same_data(a, b)
    b["chunks"][2]["last_time"] = 7
    assert differences(a, b) == ["chunk 2 last_time"]
    b["compressor"] = "zstd"
    assert differences(a, b) == ["compressor", "chunk 2 last_time"]
    assert differences(a, {**a, "chunks": a["chunks"][:2]}) == ["chunks: 3 and 2"]
