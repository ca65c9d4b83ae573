"""The status page over a real socket, with a real run database."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from straxflow.dashboard import page as page_module
from straxflow.dashboard.server import Serving, in_background, listen
from straxflow.errors import StraxflowError
from straxflow.lab.rundb_server import RunDbServer
from tests.dashboard_site import EVIL, SVG, PageSite, page_site
from tests.site import wait_until

Json = dict[str, Any]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, rundb_server: RunDbServer) -> Iterator[PageSite]:
    """A site with a run in each state."""
    yield from page_site(tmp_path_factory.mktemp("page"), rundb_server)


@pytest.fixture(scope="module")
def serving(site: PageSite) -> Iterator[Serving]:
    """The page, on a port of its own."""
    with in_background(site.site) as serving:
        yield serving


def get(serving: Serving, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(serving.url.split("/")[2], timeout=20)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), body


def told(serving: Serving, path: str) -> Any:
    status, _, body = get(serving, path)
    assert status == 200, body
    return json.loads(body)


def fresh(serving: Serving) -> Json:
    """The overview, once the database was read."""
    return wait_until(lambda: (s := told(serving, "/api/status"))["database"]["made"] and s)  # type: ignore[no-any-return]


def test_overview(serving: Serving) -> None:
    status = fresh(serving)
    assert status["counts"] == {
        "working": 1, "pending": 2, "waiting": 1, "held": 1, "failed": 1, "done": 2, "new": 1, "left": 0,
    }  # fmt: skip
    assert status["oldest"]["run"] == "000104"
    assert status["due"]["failed"] > status["now"]
    assert status["due"]["waiting"] > status["due"]["failed"]
    assert [(i["runs"], i["alive"]) for i in status["invocations"]] == [(1, True)]
    assert [w["alive"] for w in status["watchers"]] == [True]
    assert status["switch"]["on"] is True
    failures = wait_until(lambda: told(serving, "/api/status")["failures"]["runs"])
    assert [f["run"] for f in failures] == ["000103"]
    assert failures[0]["reason"] == EVIL
    assert failures[0]["progress"]["troubles"][0]["tail"].splitlines()[-2] == "the last word"
    disks = wait_until(lambda: told(serving, "/api/status")["disks"])
    assert {d["kind"] for d in disks} == {"state", "live", "staging", "store"}
    assert all(d["free"] > 0 and d["problem"] is None for d in disks)
    bars = wait_until(lambda: told(serving, "/api/status")["throughput"]["hours"])
    assert sum(bar["runs"] for bar in bars) == 2
    assert sum(bar["stored"] for bar in bars) > 1e8
    monitor = wait_until(lambda: told(serving, "/api/status")["monitor"])
    assert monitor[0]["product"] == "events"
    assert monitor[0]["runs"][0]["values"]["events"] == 12


def test_runs_newest_first_and_by_state_and_mode(serving: Serving) -> None:
    def numbers(query: str) -> list[int]:
        wait_until(lambda: told(serving, f"/api/runs?{query}")["made"])
        return [run["number"] for run in told(serving, f"/api/runs?{query}")["runs"]]

    assert numbers("") == list(range(111, 100, -1))
    assert numbers("state=pending") == [109, 104]
    assert numbers("state=failed") == [103]
    assert numbers("mode=led") == [102]
    assert numbers("state=done&mode=background") == [101]
    assert numbers("mode=nothing") == []
    assert 108 in numbers("state=taking")
    runs = {run["number"]: run for run in told(serving, "/api/runs")["runs"]}
    assert runs[101]["progress"]["cells"] == {"live": "dd", "raw_records": "dddd", "events": "dddd", "release": "d"}
    assert runs[102]["progress"]["cells"] == {"live": "dd", "raw_records": "dddd", "release": "d"}
    assert runs[103]["progress"]["cells"]["raw_records"] == "f..."
    assert runs[107]["progress"]["cells"]["raw_records"] == "r..."
    assert (runs[107]["state"], runs[108]["state"]) == ("working", "taking")
    assert runs[110]["problem"]


def test_a_run(serving: Serving) -> None:
    run = told(serving, "/api/run/000103")
    assert run["row"]["failures"] == 2
    assert "in back-off until" in run["why_not"][0]
    assert run["attempts"][0]["outcome"] == "failed"
    assert [r["step"] for r in run["receipts"]] == ["transfer", "register_live"]
    log = told(serving, f"/api/log/000103/raw_records/{run['attempts'][0]['name']}")
    assert "red <img" in log["text"]
    done = told(serving, "/api/run/000101")
    assert done["tags"][0]["text"] == done["comments"][0]["text"] == EVIL
    assert done["entries"][0]["type"] == "live"
    assert len(done["receipts"]) == 11
    assert get(serving, "/api/run/000999")[0] == 404
    for odd in ("000110", "000111"):
        assert told(serving, f"/api/run/{odd}")["run"] == odd


@pytest.mark.fault(
    group="security",
    broken="a plot that holds scripts, or is a link elsewhere",
    left="shown without any rights, or not at all",
    next="nothing to do",
)
def test_a_plot_can_do_nothing(serving: Serving, site: PageSite) -> None:
    status, headers, body = get(serving, "/api/plot/000101/events")
    assert (status, headers["Content-Type"], body.decode()) == (200, "image/svg+xml", SVG)
    assert "sandbox" in headers["Content-Security-Policy"]
    assert "script-src" not in headers["Content-Security-Policy"]
    assert get(serving, "/api/plot/000102/events")[0] == 404
    assert get(serving, "/api/plot/000101/peaks")[0] == 404
    here = site.site.state.run("000101") / "events" / "plot.svg"
    moved = here.rename(here.with_name("moved"))
    try:
        assert get(serving, "/api/plot/000101/events")[2].decode() == SVG  # of the database
        here.symlink_to(moved)
        moved.write_text(SVG + "<!-- secret -->")
        assert b"secret" not in get(serving, "/api/plot/000101/events")[2]
    finally:
        here.unlink(missing_ok=True)
        moved.write_text(SVG)
        moved.rename(here)


@pytest.mark.fault(
    group="security",
    broken="the page is asked under foreign names, by paths that climb, with oversized and malformed requests",
    left="the page for all others; no file and no inner word told",
    next="nothing to do",
)
@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\n\r\n", 421),
        (b"GET / HTTP/1.0\r\n\r\n", 421),
        (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", 421),
        (b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        (b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /a%00b HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc", 413),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: odd\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
    ],
)
def test_odd_requests(serving: Serving, request_: bytes, status: int) -> None:
    host, port = serving.url.split("/")[2].split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(request_)
        answer = connection.recv(65536)
    assert answer.split()[1] == str(status).encode(), answer[:200]
    assert b"root:" not in answer
    assert b"Traceback" not in answer
    assert b"waitress" not in answer.lower()
    assert get(serving, "/")[0] == 200


def test_one_reading_for_all_who_look(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    look = page_module.look

    def counted(*words: Any) -> Any:
        reads.append(time.monotonic())
        return look(*words)

    monkeypatch.setattr(page_module, "look", counted)
    fresh(serving)
    reads.clear()
    began = time.monotonic()
    threads = [threading.Thread(target=lambda: [told(serving, "/api/status") for _ in range(5)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reads) <= (time.monotonic() - began) / 0.5 + 1
    reads.clear()
    time.sleep(1.2)
    assert reads == []  # nobody looks, nothing is read


def test_the_database_away_and_back(serving: Serving, site: PageSite) -> None:
    made = fresh(serving)["database"]["made"]
    site.door.shut()
    try:
        status = wait_until(lambda: (s := told(serving, "/api/status"))["database"]["problem"] and s)
        assert "does not answer" in status["database"]["problem"]
        assert status["database"]["made"] >= made
        assert status["counts"]["failed"] == 1  # as it said last
        runs = wait_until(lambda: {r["run"]: r for r in told(serving, "/api/runs")["runs"] if r["number"] == 103})
        assert runs["000103"]["state"] == "failed"
        run = wait_until(lambda: (r := told(serving, "/api/run/000103"))["database"] and r)
        assert "does not answer" in run["database"]
        assert run["attempts"]
    finally:
        site.door.is_open = True
    wait_until(lambda: told(serving, "/api/status")["database"]["problem"] is None)


def test_the_port_is_taken(serving: Serving, site: PageSite) -> None:
    with pytest.raises(StraxflowError, match="choose another with --host and --port"):
        listen(site.site, "127.0.0.1", int(serving.url.split(":")[2].rstrip("/")))


def test_the_command(site: PageSite, serving: Serving) -> None:
    (site.folder / "site.yaml").write_text(yaml.safe_dump(site.settings))
    words = [sys.executable, "-m", "straxflow.cli", "dashboard", "--configfile", str(site.folder / "site.yaml")]
    taken = serving.url.split(":")[2].rstrip("/")
    failed = subprocess.run([*words, "--port", taken], capture_output=True, text=True, check=False)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert f"cannot listen on 127.0.0.1 port {taken}" in failed.stderr
    assert subprocess.run([*words, "--port", "x"], capture_output=True, check=False).returncode == 2
    for number, code in ((signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)):
        with subprocess.Popen([*words, "--port", "0"], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            said = process.stdout.readline()
            url = said.split("at ")[1].split()[0]
            assert json.loads(urllib.request.urlopen(f"{url}api/status").read())["site"] == "here"
            process.send_signal(number)
            assert process.wait(30) == code


@pytest.mark.fault(
    group="security",
    broken="the page is asked for under a foreign name, listening on all addresses",
    left="nothing told (421)",
    next="nothing to do",
)
def test_without_loopback_only_named_hosts_are_answered(site: PageSite) -> None:
    with in_background(site.site, host="0.0.0.0") as serving:
        port = serving.url.split(":")[2].rstrip("/")
        for host, status in (("localhost", 200), ("0.0.0.0", 421), (socket.gethostname(), 421)):
            connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=20)
            connection.request("GET", "/", headers={"Host": host})
            assert connection.getresponse().status == status
            connection.close()
