import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from straxflow import fsio
from straxflow.errors import Damaged, StepFailed
from straxflow.fsio import remove_tree, rename_noreplace, walk_files, write_atomic
from straxflow.owner import Owner

ODD = [
    b"a b",
    b"new\nline",
    b"q\"uo'te",
    b"back\\slash",
    "ünï".encode(),
    b"-dash",
    b"\xff\xfe",
    b"\\#012",
    b"#h",
    b";s",
]


def test_write_atomic_touches_when_same_and_leaves_no_temp(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    assert write_atomic(path, b"1")
    os.utime(path, (1, 1))
    inode = path.stat().st_ino
    assert not write_atomic(path, b"1")
    assert path.stat().st_ino == inode and path.stat().st_mtime > 1
    assert write_atomic(path, b"2") and path.read_bytes() == b"2"
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_walk_files_handles_any_name(tmp_path: Path) -> None:
    for name in ODD:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(name)
    assert sorted(os.fsencode(p) for p, _ in walk_files(tmp_path)) == sorted(ODD)
    assert all(size == len(os.fsencode(p)) for p, size in walk_files(tmp_path))


@pytest.mark.parametrize("make", [lambda p: p.symlink_to("/etc"), os.mkfifo])
def test_walk_files_refuses_links_and_pipes(tmp_path: Path, make) -> None:
    make(tmp_path / "odd")
    with pytest.raises(Damaged, match="'odd' is"):
        walk_files(tmp_path)


def test_walk_files_of_a_missing_folder_is_not_empty(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        walk_files(tmp_path / "gone")


@pytest.mark.parametrize("fallback", [False, True])
def test_rename_never_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fallback: bool) -> None:
    if fallback:
        monkeypatch.setattr(fsio, "_libc", object())
    new, empty, full = tmp_path / "new", tmp_path / "empty", tmp_path / "full"
    for folder in (new, empty, full):
        folder.mkdir()
    (full / "x").touch()
    for target in (empty, full):
        with pytest.raises(FileExistsError):
            rename_noreplace(new, target)
    rename_noreplace(new, tmp_path / "free")
    assert not new.exists() and empty.is_dir()


def test_a_file_that_slips_in_is_not_replaced_where_the_kernel_cannot_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fsio, "_libc", object())
    target = tmp_path / "receipt"
    real = os.lstat

    def slips_in(path: str) -> os.stat_result:
        target.write_bytes(b"theirs")
        return real(path)

    monkeypatch.setattr(os, "lstat", slips_in)
    monkeypatch.setattr(os.path, "lexists", lambda _: False)
    with pytest.raises(FileExistsError):
        write_atomic(target, b"mine", new=True)
    monkeypatch.undo()
    assert target.read_bytes() == b"theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["receipt"]


def test_what_a_program_made_unwritable_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    deep = Path("tree/sub/deep")
    deep.mkdir(parents=True)
    (deep / "file").touch()
    user = os.geteuid() or 65534
    for path in (deep / "file", deep, deep.parent, deep.parent.parent, Path()):
        os.chown(path, user, -1)
    deep.chmod(0)
    deep.parent.chmod(0o500)
    before = os.geteuid()
    os.seteuid(user)
    try:
        remove_tree(Path("tree"))
    finally:
        os.seteuid(before)
    assert not Path("tree").exists()


def test_of_a_link_only_the_link_is_removed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    remove_tree(tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]


def test_what_cannot_be_reaped_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    names = sorted(f".incoming-{dead_token()}" for _ in range(2))
    for name in names:
        (tmp_path / name).mkdir()
    real = fsio.remove_tree

    def fails(folder: Path) -> None:
        if folder.name == names[0]:
            raise StepFailed(f"{folder}: could not be removed: busy")
        real(folder)

    monkeypatch.setattr(fsio, "remove_tree", fails)
    assert fsio.reap(tmp_path) == [tmp_path / names[1]]
    assert "busy" in caplog.text


def dead_token() -> str:
    code = "from straxflow.fsio import token; print(token())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_reap_removes_only_what_is_provably_dead(tmp_path: Path) -> None:
    dead = [f".incoming-{dead_token()}", f".incoming-000932-x-y~{dead_token()}"]
    other = dead_token().split("~", 1)[1]
    kept = [
        fsio.incoming_name("a"),
        f".incoming-otherhost~{other}",
        ".incoming-",
        ".incoming-what",
        "000932",
        "x~1~2~3",
    ]
    for name in dead + kept:
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").touch()
    assert sorted(p.name for p in fsio.reap(tmp_path)) == sorted(dead)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(kept)


def test_what_was_moved_is_safe_from_who_works_in_the_old_folder(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for file in (old / "000000/r_0", old / "000001/r_0", old / "THE_END", new / "THE_END"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"of {file.parent.name}")
    # as a receiving rsync writes: a hidden name, then renamed, by relative names
    worker = "read x; exec 3>000000/.r_1; read x; echo more >&3; mv 000000/.r_1 000000/r_1; mv 000001/x 000001/r_0"
    with subprocess.Popen(["sh", "-c", worker], cwd=old, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin
        process.stdin.write(b"\n")
        process.stdin.flush()
        while not (old / "000000/.r_1").exists():
            time.sleep(0.01)
        fsio.move_content(old, new)
        process.stdin.write(b"\n")
    assert process.returncode
    there = {path.relative_to(new).as_posix(): path.read_text() for path in new.rglob("*") if path.is_file()}
    of_old = {"000000/r_0": "of 000000", "000001/r_0": "of 000001", "000000/.r_1": "more\n"}
    assert there == {**of_old, "THE_END": "of new"}
    assert [path.name for path in old.iterdir()] == ["THE_END"]
    (old / "THE_END").unlink()
    for _ in range(2):
        fsio.move_content(old, new)
        assert not old.exists()


def test_what_two_dead_attempts_left_becomes_one(tmp_path: Path) -> None:
    one, two, new = tmp_path / "one", tmp_path / "two", tmp_path / "new"
    for file in (one / "000000/r_0", one / "000000/r_1", two / "000000/r_1", two / "000000/r_2", two / "000001/r_0"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"of {file.parts[-3]}")
    (two / "000002").symlink_to(one)
    (new / "000002").mkdir(parents=True)
    fsio.move_content(one, new)
    fsio.move_content(two, new)
    there = {path.relative_to(new).as_posix(): path.read_text() for path in new.rglob("*") if path.is_file()}
    assert there == {
        "000000/r_0": "of one", "000000/r_1": "of one", "000000/r_2": "of two", "000001/r_0": "of two"
    }  # fmt: skip
    assert not one.exists()
    assert sorted(path.relative_to(two).as_posix() for path in two.rglob("*")) == ["000000", "000000/r_1", "000002"]


def test_a_write_that_failed_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    with (tmp_path / "f").open() as file:
        fsio.write_back(file.fileno())
    with pytest.raises(OSError, match="Bad file descriptor"):
        fsio.write_back(-1)


def test_names_of_incoming_folders(tmp_path: Path) -> None:
    name = fsio.incoming_name("000932-events-abc")
    assert fsio.is_incoming_of(name, "000932-events-abc") and not fsio.is_incoming_of(name, "000932-events")
    assert not fsio.owner_is_dead(name) and not fsio.owner_is_dead("rubbish")
    assert Owner.from_token(fsio.token()) == Owner.current()


def test_marker(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match=r"no identity marker.*mounted"):
        fsio.check_marker(tmp_path, "store", "nikhef")
    with pytest.raises(StepFailed, match="no such folder"):
        fsio.check_marker(tmp_path / "gone", "store", "nikhef")
    with pytest.raises(StepFailed, match="no such folder"):
        fsio.write_marker(tmp_path / "gone", "store", "nikhef")
    fsio.write_marker(tmp_path, "store", "nikhef")
    fsio.write_marker(tmp_path, "store", "nikhef")
    fsio.check_marker(tmp_path, "store", "nikhef")
    with pytest.raises(StepFailed, match="is the store of site nikhef, expected the store of site lngs"):
        fsio.check_marker(tmp_path, "store", "lngs")
    with pytest.raises(StepFailed):
        fsio.write_marker(tmp_path, "staging", "nikhef")
    (tmp_path / fsio.MARKER).write_bytes(b"\xff[")
    with pytest.raises(StepFailed, match="not readable"):
        fsio.check_marker(tmp_path, "store", "nikhef")


def test_errors_of_reads_and_writes_name_their_file(tmp_path: Path) -> None:
    full = Path("/dev/full")
    with (
        pytest.raises(OSError, match="No space left on device: '/dev/full'"),
        fsio.naming(full),
        full.open("wb") as out,
    ):
        out.write(b"x")
    with pytest.raises(FileNotFoundError, match="there"), fsio.naming(tmp_path):
        (tmp_path / "there").read_bytes()


def test_files_of_the_future_are_brought_back(tmp_path: Path) -> None:
    for name, hours in (("old.json", -1), ("new.json", 1), ("log.txt", 1)):
        (tmp_path / name).touch()
        moment = (tmp_path / name).stat().st_mtime + 3600 * hours
        os.utime(tmp_path / name, (moment, moment))
    (tmp_path / "claim.json").touch()
    now = (tmp_path / "claim.json").stat().st_mtime
    assert fsio.bring_back(tmp_path, tmp_path / "claim.json") == [tmp_path / "new.json"]
    assert (tmp_path / "new.json").stat().st_mtime == now
    assert (tmp_path / "old.json").stat().st_mtime < now < (tmp_path / "log.txt").stat().st_mtime
