"""Data that are there already are compared with what was once told of them, in whatever way it was told."""

from pathlib import Path

import pytest

from straxflow.attempts import AttemptFile
from straxflow.digests import ALGORITHMS, Manifest, hash_tree, hasher_of
from straxflow.errors import Damaged
from straxflow.known import known_manifests, unlike_known
from straxflow.receipts import Checksums, Processed, write
from straxflow.recheck import find_stale
from tests.unit.test_release import RAW, RUN, make

FOLDER = f"{RUN}-raw-abc"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "store" / FOLDER
    (folder / "sub").mkdir(parents=True)
    (folder / "one").write_text("one")
    (folder / "sub" / "two").write_text("two")
    return folder


def manifest_of(folder: Path, algorithm: str) -> Manifest:
    found = hash_tree(folder, algorithm)
    return Manifest.from_rows(algorithm, [(f"{folder.name}/{p}", size, digest) for p, size, digest in found.rows])


def tell(tmp_path: Path, manifest: Manifest, how: str, campaign: str = "online") -> Path:
    product = tmp_path / "state" / campaign / "runs" / RUN / "raw"
    if how == "list":
        path = product / f"{manifest.algorithm}sums.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(manifest.to_list())
        return path
    names = {"receipt": "checksums.json", "stale": "checksums.json.stale-20261130T120000"}
    path = product / names[how] if how in names else product.parent / "history" / "x" / "raw" / "checksums.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    sums = Checksums(run=RUN, product="raw", algorithm=manifest.algorithm, files=manifest.rows, list_file="", seconds=0)
    write(path, sums)
    return path


def odd(tmp_path: Path, data: Path) -> str | None:
    return unlike_known(known_manifests(tmp_path / "state", RUN, ["raw"]), FOLDER, hasher_of(data))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("how", ["list", "receipt", "stale", "history"])
@pytest.mark.parametrize("campaign", ["online", "v5"])
def test_what_changed_is_seen_however_it_was_told(
    tmp_path: Path, data: Path, algorithm: str, how: str, campaign: str
) -> None:
    tell(tmp_path, manifest_of(data, algorithm), how, campaign)
    assert odd(tmp_path, data) is None
    (data / "one").write_text("0ne")
    assert "'one': digest" in str(odd(tmp_path, data))
    (data / "one").unlink()
    assert "'one': missing" in str(odd(tmp_path, data))
    (data / "one").write_text("one")
    (data / "three").write_text("")
    assert "'three': surplus" in str(odd(tmp_path, data))
    (data / "three").unlink()
    (data / "three").symlink_to(data / "one")
    assert "symbolic link" in str(odd(tmp_path, data))


def test_one_of_several_makes_is_enough_and_of_the_unknown_nothing_is_said(tmp_path: Path, data: Path) -> None:
    assert odd(tmp_path, data) is None
    tell(tmp_path, manifest_of(data, "xxh128"), "list")
    (data / "one").write_text("made at another time")
    assert odd(tmp_path, data)
    tell(tmp_path, manifest_of(data, "sha256"), "list")
    assert odd(tmp_path, data) is None
    assert known_manifests(tmp_path / "state", RUN, ["peaks"]) == []
    assert known_manifests(tmp_path / "state", "000002", ["raw"]) == []
    assert unlike_known(known_manifests(tmp_path / "state", RUN, ["raw"]), f"{RUN}-raw-def", hasher_of(data)) is None


def test_a_list_that_is_cut_short_is_no_leave_to_take_anything(tmp_path: Path, data: Path) -> None:
    file = tell(tmp_path, manifest_of(data, "xxh128"), "list")
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(Damaged, match=r"xxh128sums\.txt: hash list: cut short"):
        odd(tmp_path, data)
    # a receipt is made again, and its list stands beside it
    file.unlink()
    receipt = tell(tmp_path, manifest_of(data, "xxh128"), "receipt")
    receipt.write_bytes(receipt.read_bytes()[:-3])
    assert odd(tmp_path, data) is None


def test_a_broken_copy_that_was_adopted_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make(tmp_path, monkeypatch)
    state = world.job.state
    staged = tmp_path / "staging" / RAW
    (state.run(RUN) / "raw" / "xxh128sums.txt").write_bytes(manifest_of(staged, "xxh128").to_list())
    for name in ("checksums.json", "stored.json", "registered.json"):
        (state.run(RUN) / "raw" / name).unlink()
    world.spoil(f"staging/{RAW}")
    path = state.path(RUN, "raw", Processed)
    made = state.get(RUN, "raw", Processed)
    # its digest is that of the broken copy
    target = made.targets["raw"].model_copy(update={"digest": hash_tree(staged).digest})
    write(path, made.model_copy(update={"targets": {"raw": target}, "adopted": "the store"}))
    AttemptFile.start(state, RUN, "raw", "checksum", "b", "log").end("damaged", "the store differs", 1)
    messages, stale = find_stale(world.job.config, state, RUN)
    assert any("'one': digest" in message for message in messages)
    assert {staged, path} <= set(stale)
