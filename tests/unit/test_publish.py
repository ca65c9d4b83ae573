import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from straxflow import publish as publishing
from straxflow.digests import hash_tree
from straxflow.errors import Damaged, Retryable, StepFailed
from straxflow.publish import Adopted, Published, SetAside, copy_tree, publish


def tree(folder: Path, content: bytes = b"abc") -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "x").write_bytes(content)
    (folder / "new\nline").write_bytes(b"")
    return folder


def same(one: Path, two: Path) -> bool:
    return hash_tree(one) == hash_tree(two)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("may not mount here")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.fixture(params=["same filesystem", "other filesystem"])
def parent(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "other filesystem":
        return Path(request.getfixturevalue("small_disk"))
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_publish_then_adopt_then_set_aside(tmp_path: Path, parent: Path) -> None:
    final = parent / "p"
    manifest = hash_tree(tree(tmp_path / "a"))
    assert publish(tmp_path / "a", final, same) == Published(final)
    assert hash_tree(final) == manifest
    assert publish(tree(tmp_path / "b"), final, same) == Adopted(final)
    outcome = publish(tree(tmp_path / "c", b"other"), final, same)
    assert isinstance(outcome, SetAside) and (outcome.aside / "sub/x").read_bytes() == b"other"
    assert hash_tree(final) == manifest
    assert not any((tmp_path / n).exists() for n in "abc")
    assert sorted(p.name for p in parent.iterdir()) == sorted(["p", outcome.aside.name])


def test_an_empty_folder_at_the_destination_is_not_replaced(tmp_path: Path, parent: Path) -> None:
    (parent / "p").mkdir()
    assert isinstance(publish(tree(tmp_path / "a"), parent / "p", same), SetAside)
    assert list((parent / "p").iterdir()) == []


def test_a_file_at_the_destination(tmp_path: Path, parent: Path) -> None:
    (parent / "p").touch()
    with pytest.raises(Damaged, match="is no folder"):
        publish(tree(tmp_path / "a"), parent / "p", same)
    assert (tmp_path / "a").is_dir() and [p.name for p in parent.iterdir()] == ["p"]


@pytest.fixture
def same_disk_again(tmp_path: Path) -> Iterator[Path]:
    """A folder that is mounted once more: its device is the same, and nothing can be renamed to it."""
    (tmp_path / "once").mkdir()
    again = tmp_path / "again"
    again.mkdir()
    if subprocess.run(["mount", "--bind", tmp_path / "once", again], capture_output=True).returncode:
        pytest.skip("may not mount here")
    yield again
    subprocess.run(["umount", "-l", again], check=True)


def test_publish_to_another_mount_of_the_same_disk(tmp_path: Path, same_disk_again: Path) -> None:
    source = tree(tmp_path / "a")
    manifest = hash_tree(source)
    assert source.stat().st_dev == same_disk_again.stat().st_dev
    assert publish(source, same_disk_again / "p", same) == Published(same_disk_again / "p")
    assert hash_tree(same_disk_again / "p") == manifest
    assert not source.exists()
    assert [path.name for path in same_disk_again.iterdir()] == ["p"]


def test_a_full_disk_leaves_nothing_and_keeps_the_source(tmp_path: Path, small_disk: Path) -> None:
    with pytest.raises(Retryable, match="disk full"):
        publish(tree(tmp_path / "a", bytes(6 << 20)), small_disk / "p", same)
    assert list(small_disk.iterdir()) == [] and (tmp_path / "a/sub/x").stat().st_size == 6 << 20


def test_a_copy_that_reads_back_differently(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, real = hash_tree(tree(tmp_path / "a")), publishing.digest_file

    def flip(folder: Path, path: str, *args, **kw):
        if path == "sub/x":
            (folder / path).write_bytes(b"abd")
        return real(folder, path, *args, **kw)

    monkeypatch.setattr(publishing, "digest_file", flip)
    with pytest.raises(StepFailed, match=r"sub/x: read back differently: found 3 bytes"):
        copy_tree(tmp_path / "a", tmp_path / "b", manifest)
    assert not (tmp_path / "b").exists()


def test_a_source_that_changed(tmp_path: Path) -> None:
    manifest = hash_tree(tree(tmp_path / "a"))
    (tmp_path / "a/sub/x").write_bytes(b"abd")
    with pytest.raises(Damaged, match=r"sub/x: changed since"):
        copy_tree(tmp_path / "a", tmp_path / "b", manifest)


def test_an_earlier_copy_is_used_but_not_trusted(tmp_path: Path) -> None:
    manifest = hash_tree(tree(tmp_path / "a"))
    old = tree(tmp_path / "old")
    copy_tree(tmp_path / "a", tmp_path / "b", manifest, reuse=[old])
    assert (tmp_path / "b/sub/x").stat().st_ino == (old / "sub/x").stat().st_ino
    (old / "sub/x").unlink()
    (old / "sub/x").write_bytes(b"abd")
    copy_tree(tmp_path / "a", tmp_path / "c", manifest, reuse=[old])
    assert hash_tree(tmp_path / "c") == manifest
