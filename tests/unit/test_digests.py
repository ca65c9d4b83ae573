import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from straxflow.digests import ALGORITHMS, FileDigest, Manifest, digest_file, hash_tree, verify_tree
from straxflow.errors import Damaged

part = st.binary(min_size=1, max_size=8).filter(lambda b: not set(b) & {0, 47} and b not in (b".", b".."))
paths = st.lists(part, min_size=1, max_size=3).map(lambda p: os.fsdecode(b"/".join(p)))


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    algorithm = draw(st.sampled_from(sorted(ALGORITHMS)))
    length = len(ALGORITHMS[algorithm]().hexdigest())
    digest = st.text("0123456789abcdef", min_size=length, max_size=length)
    names = draw(st.lists(paths, unique=True, max_size=8))
    return Manifest.from_rows(algorithm, [(n, draw(st.integers(0, 2**50)), draw(digest)) for n in names])


@given(manifests())
def test_list_roundtrip(manifest: Manifest) -> None:
    sizes = {f.path: f.size for f in manifest.files}
    assert Manifest.from_list(manifest.algorithm, manifest.to_list(), sizes) == manifest
    assert Manifest.from_rows(manifest.algorithm, manifest.rows) == manifest


@given(manifests().filter(lambda m: m.files), st.data())
def test_every_single_change_is_named(manifest: Manifest, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(manifest.files))
    others = [f for f in manifest.files if f != file]
    wrong = ("0" if file.digest[0] != "0" else "1") + file.digest[1:]
    cases: list[tuple[str, list[FileDigest]]] = [
        ("missing", others),
        ("size", [*others, FileDigest(file.path, file.size + 1, file.digest)]),
        ("digest", [*others, FileDigest(file.path, file.size, wrong)]),
        ("surplus", [*manifest.files, FileDigest(file.path + "x" * 9, 1, wrong)]),
    ]
    assert manifest.differences(manifest.files) == []
    for kind, found in cases:
        [difference] = manifest.differences(found)
        assert difference.kind == kind and difference.path.startswith(file.path)


@settings(max_examples=40, deadline=None)
@given(content=st.binary(min_size=1, max_size=300), where=st.integers(0), bit=st.integers(0, 7))
def test_a_flipped_bit_on_disk_is_found(tmp_path_factory, content: bytes, where: int, bit: int) -> None:
    folder = tmp_path_factory.mktemp("t")
    (folder / "f").write_bytes(content)
    manifest = hash_tree(folder, cold=True)
    changed = bytearray(content)
    changed[where % len(content)] ^= 1 << bit
    (folder / "f").write_bytes(changed)
    [difference] = verify_tree(folder, manifest)
    assert (difference.path, difference.kind) == ("f", "digest")


@pytest.mark.parametrize("path", ["/abs", "../up", "a/../b", "", "a//b", "./a", "a\0b"])
def test_paths_that_leave_the_folder_are_refused(path: str) -> None:
    with pytest.raises(Damaged):
        Manifest.from_rows("xxh128", [(path, 0, "0" * 32)])


@pytest.mark.parametrize(
    "text", [b"rubbish\n", b"0" * 31 + b"  a\n", b"0" * 32 + b"  a", b"\\" + b"0" * 32 + b"  a\\q\n"]
)
def test_damaged_lists_are_refused(text: bytes) -> None:
    with pytest.raises(Damaged):
        Manifest.from_list("xxh128", text, {"a": 1, "aq": 1})


@pytest.mark.parametrize(("algorithm", "tool"), [("xxh128", "xxhsum"), ("sha256", "sha256sum")])
def test_standard_tools_accept_the_list(tmp_path: Path, algorithm: str, tool: str) -> None:
    if not shutil.which(tool):
        pytest.skip(f"no {tool}")
    folder = tmp_path / "d"
    (folder / "sub").mkdir(parents=True)
    names = ["a b", "sub/-dash", "ünï", "q\"'"]
    # xxhsum before 0.8.2 knows no escapes
    names += ["new\nline", "back\\slash"] if algorithm == "sha256" else []
    for name in names:
        (folder / name).write_bytes(os.urandom(3_000_000))
    manifest = hash_tree(folder, algorithm)
    (tmp_path / "list").write_bytes(manifest.to_list())
    check = [tool, "--strict", "-c", str(tmp_path / "list")]
    done = subprocess.run(check, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count(": OK") == len(names), done
    with (folder / "a b").open("r+b") as file:
        file.write(b"\0\0\0\0\0\0\0\0")
    assert subprocess.run(check, cwd=folder, capture_output=True).returncode != 0
    assert manifest.bytes == 3_000_000 * len(names)
    assert digest_file(folder, "ünï", algorithm, cold=True) == manifest.by_path["ünï"]


def test_below() -> None:
    manifest = Manifest.from_rows("xxh128", [("a/b", 1, "0" * 32), ("ab/c", 2, "1" * 32)])
    assert manifest.below("a").rows == [("b", 1, "0" * 32)]
