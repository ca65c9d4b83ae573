import pytest

from straxflow.errors import ConfigError, Retryable, StepFailed
from straxflow.transport import ssh
from straxflow.transport.rsync import Place, check_args, explain, parse_line

DIGEST = "98f168feb01dac143bca8b233a134f51"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (rb"new\#012line", "new\nline"),
        (rb"\#134#012", r"\#012"),
        (rb"back\slash", r"back\slash"),
        (rb" lead and tail ", " lead and tail "),
        (rb"\#303\#274", "ü"),
        (rb"\#377", "\udcff"),
        (b"=>f....", "=>f...."),
    ],
)
def test_names(text: bytes, path: str) -> None:
    item = parse_line(b"=>f+++++++++ " + DIGEST.encode() + b" 12 " + text + b"\n")
    assert item and (item.path, item.size, item.digest) == (path, 12, DIGEST)
    assert item.is_file and item.is_sent


def test_other_lines() -> None:
    skipped = parse_line(b"=.f          " + b" " * 32 + b" 5 a\n")
    assert skipped and skipped.is_file and not skipped.is_sent and skipped.digest == ""
    folder = parse_line(b"=cd+++++++++ " + b" " * 32 + b" 4096 ./\n")
    assert folder and not folder.is_file
    assert parse_line(b"created directory x\n") is None


@pytest.mark.parametrize(
    ("code", "stderr", "kind", "said"),
    [
        (255, "ssh: connect to host h port 22: Connection refused\n", ssh.LostConnection, "unreachable"),
        (
            12,
            "ssh: connect to host h port 22: Connection timed out\nrsync: x",
            ssh.LostConnection,
            "unreachable",
        ),
        (255, "Host key verification failed.\nrsync: connection unexpectedly closed", Retryable, "host key"),
        (255, "u@h: Permission denied (publickey,password).\n", Retryable, "refused our key"),
        (
            255,
            "ssh: Could not resolve hostname h: Name or service not known\n",
            Retryable,
            "no such host name",
        ),
        (
            23,
            'rsync: [sender] change_dir "/x" failed: No such file or directory (2)\nBroken pipe',
            StepFailed,
            "no such source",
        ),
        (
            23,
            'rsync: [sender] send_files failed to open "/x/y": Permission denied (13)\n',
            StepFailed,
            "permissions",
        ),
        (11, "rsync: write failed: No space left on device (28)\n", Retryable, "disk full"),
        (24, "rsync warning: some files vanished", ssh.LostConnection, "vanished"),
        (30, "rsync error: timeout in data send/receive (code 30)", ssh.LostConnection, "time-out"),
        (12, "bash: rsync: command not found\n", Retryable, "not installed"),
        (12, "rsync error: error in rsync protocol data stream", ssh.LostConnection, "connection lost"),
        (1, "rsync: --frob: unknown option", StepFailed, "exit 1"),
        (-9, "", ssh.LostConnection, "signal 9"),
    ],
)
def test_exit_codes(code: int, stderr: str, kind: type[Exception], said: str) -> None:
    error = explain(Place("/x", "h"), code, stderr)
    assert type(error) is kind and said in str(error) and "h" in str(error)


@pytest.mark.parametrize(
    "arg",
    [
        "--inplace",
        "--append-verify",
        "-n",
        "-an",
        "--delete",
        "--out-format=%n",
        "--rsh=sh",
        "-e",
        "x",
        "--",
        "-aI",
    ],
)
def test_arguments_that_undo_the_verification(arg: str) -> None:
    with pytest.raises(ConfigError):
        check_args([arg])


def test_arguments_that_are_fine() -> None:
    check_args(["-a", "-z", "--bwlimit=10m", "--chmod=g+w", "--exclude=*_temp", "--rsync-path=/opt/rsync", "-vv"])


@pytest.mark.parametrize(
    "place", [Place("rel"), Place("/a*"), Place("/a\nb"), Place("/a", "-oProxyCommand=x"), Place("/a", "h;x")]
)
def test_places_that_are_refused(place: Place) -> None:
    with pytest.raises(ConfigError):
        place.spec()


def test_places() -> None:
    assert Place("/a b/c", "u@h.x").spec() == "u@h.x:/a b/c/"
    assert Place("/a/").spec() == "/a/"
