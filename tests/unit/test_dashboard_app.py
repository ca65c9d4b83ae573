"""The status page's web application: which requests it answers; nothing here needs a server or a database."""

import gzip
import json
import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from straxflow.attempts import Attempt, folder
from straxflow.cli.site import Site
from straxflow.config import load
from straxflow.dashboard.app import App
from straxflow.dashboard.page import Page
from straxflow.folders import init_folders
from straxflow.owner import Owner
from straxflow.receipts import RunFacts, write

RUN = "000007"
FOREIGN = [
    "evil.example",
    "evil.example:8080",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "a@localhost",
    "localhost:80:80",
    "localhost:x",
    "[::1",
    "localhost/..",
    "page.example.org.",
    "localhost\xa0evil",
]
NOWHERE = [
    "/..",
    "/../../etc/passwd",
    "//etc/passwd",
    "/static/../app.py",
    "/app.py",
    "/index.html",
    "/.git/config",
    "*",
    "/api",
    "/api/",
    "/api/run/",
    "/app.js/",
    "/api/run/../x",
    "/api/run/a-b",
    "/é",
    "/a\x00b",
    "/api/log/{run}/raw_records/../x",
    "/api/log/{run}/raw_records/none",
    "/api/log/{run}/peaks/{name}",
    "/api/log/../{run}/{name}",
    "/api/log/000008/raw_records/{name}",
    "/api/log/{run}/raw_records/{name}.json",
]
ODD = [
    "state=faild",
    "state=$ne",
    "state[$ne]=x",
    "mode=a%00b",
    "mode=%ff",
    "state=done&state=done",
    "x=1",
    "a=1&b=1&c=1&d=1&e=1",
]
ELSEWHERE = [
    "/etc/passwd",
    "../../secret",
    "logs/../../secret",
    "logs/../secret",
    "logs",
    "secret",
    "batches/x",
    "logs/a\x00b",
]
NAME = "20260101T000000000000-process-01234567"
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site with one run and one attempt, and a database that is away."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "site": "here",
        "folders": {name: str(tmp_path / name) for name in ("state", "live", "staging")},
        "store": {"folder": str(tmp_path / "store"), "min_free_gb": 0},
        "daq": {"host": "daq", "folder": str(tmp_path)},
        "rundb": {"uri": f"mongodb://127.0.0.1:{port}/", "timeout_s": 0.2},
        "runs": {"min_run_number": 1},
        "products": {"raw_records": {"from": "live"}},
        "dashboard": {"hosts": ["page.example.org"]},
    }
    found = Site(load(settings), "online", "none", "site.yaml")
    init_folders(found.config, found.state)
    (found.state.run(RUN) / "raw_records").mkdir(parents=True)
    write(found.state.run(RUN) / RunFacts.name, RunFacts(run=RUN, number=7, start=MOMENT, end=MOMENT, mode="bg"))
    attempt(found, f"logs/{RUN}/raw_records.process.log")
    (found.state.folder / "logs" / RUN).mkdir(parents=True)
    (found.state.folder / "logs" / RUN / "raw_records.process.log").write_text("one\n\x1b[31mtwo\x1b[0m <b>\n")
    return found


def attempt(site: Site, log: str, name: str = NAME) -> None:
    one = Attempt(
        run=RUN, product="raw_records", step="process", batch="b", owner=Owner.current().as_dict(), log=log,
        started=MOMENT, ended=MOMENT, outcome="failed", reason="<script>alert(1)</script>",
    )  # fmt: skip
    place = folder(site.state, RUN, "raw_records")
    place.mkdir(exist_ok=True)
    (place / f"{name}.json").write_text(one.model_dump_json())


Ask = Callable[..., tuple[int, dict[str, str], bytes]]


@pytest.fixture
def ask(site: Site) -> Ask:
    """Ask the application; gives status, headers, body."""
    app = App(Page(site))

    def request(path: str, query: str = "", method: str = "GET", **environ: str) -> tuple[int, dict[str, str], bytes]:
        told: list[Any] = []
        given = {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query, "HTTP_HOST": "localhost:8080"}
        body = b"".join(app(given | environ, lambda *words: told.extend(words)))
        return int(told[0].split()[0]), dict(told[1]), body

    return request


def test_the_page_and_its_parts_come_with_strict_headers(ask: Ask) -> None:
    for path, kind in [("/", "text/html"), ("/app.js", "text/javascript"), ("/api/status", "application/json")]:
        status, headers, body = ask(path)
        assert (status, bool(body)) == (200, True)
        assert headers["Content-Type"].startswith(kind)
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in headers


def test_no_script_or_style_stands_in_the_page_itself(ask: Ask) -> None:
    html = ask("/")[2].decode()
    assert "<style" not in html
    assert " style=" not in html
    assert html.count("<script") == html.count('<script type="module" src="app.js"></script>') == 1
    for name in ("app", "chart", "dom", "format", "monitor", "overview", "parts", "run"):
        text = ask(f"/{name}.js")[2].decode()
        # text becomes nodes and attributes, never markup; and nothing is fetched from elsewhere
        for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "https:"):
            assert word not in text
        assert text.replace("http://www.w3.org/", "").count("http:") == 0


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "BREW"])
def test_it_only_shows(ask: Ask, method: str) -> None:
    status, headers, _ = ask("/api/status", method=method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_head_has_no_body(ask: Ask) -> None:
    status, headers, body = ask("/", method="HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 100


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8080", "[::1]:80", "page.example.org"])
def test_known_hosts(ask: Ask, host: str) -> None:
    assert ask("/", HTTP_HOST=host)[0] == 200


@pytest.mark.parametrize("host", ["", "localhost evil", *FOREIGN])
def test_foreign_hosts_are_refused(ask: Ask, host: str) -> None:
    for path in ("/", "/api/status", "/nothing"):
        status, _, body = ask(path, HTTP_HOST=host)
        assert status == 421
        assert "here" not in json.loads(body).get("site", "")


@pytest.mark.parametrize("path", ["", *NOWHERE])
def test_what_is_not_there(ask: Ask, path: str) -> None:
    assert ask(path.format(run=RUN, name=NAME))[0] == 404


@pytest.mark.parametrize("query", [f"mode={'a' * 101}", *ODD])
def test_odd_queries(ask: Ask, query: str) -> None:
    assert ask("/api/runs", query)[0] == 400


def test_oversized(ask: Ask) -> None:
    assert ask("/" + "a" * 400)[0] == 414
    assert ask("/api/runs", "mode=" + "a" * 400)[0] == 414
    assert ask("/", CONTENT_LENGTH="5")[0] == 413
    assert ask("/", HTTP_TRANSFER_ENCODING="chunked")[0] == 413
    assert ask("/", CONTENT_LENGTH="0")[0] == 200


def test_the_same_again_is_not_sent_again(ask: Ask) -> None:
    tag = ask("/style.css")[1]["ETag"]
    assert ask("/style.css", HTTP_IF_NONE_MATCH=tag)[0::2] == (304, b"")
    status, headers, body = ask("/style.css", HTTP_ACCEPT_ENCODING="gzip, deflate")
    assert (status, headers["Content-Encoding"]) == (200, "gzip")
    assert gzip.decompress(body) == ask("/style.css")[2]


def test_a_failure_within_tells_nothing(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Page) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(Page, "overview", fail)
    status, _, body = ask("/api/status")
    assert status == 500
    assert b"secret" not in body


def test_without_the_database_the_state_folder_tells(ask: Ask) -> None:
    told = json.loads(ask("/api/status")[2])
    assert "does not answer" in told["database"]["problem"]
    assert told["failures"]["runs"][0]["run"] == RUN
    runs = json.loads(ask("/api/runs")[2])["runs"]
    assert [(r["run"], r["state"], r["progress"]["cells"]["raw_records"]) for r in runs] == [(RUN, "failed", "f...")]
    assert json.loads(ask("/api/runs", "state=done")[2])["runs"] == []
    page = json.loads(ask(f"/api/run/{RUN}")[2])
    assert "does not answer" in page["database"]
    assert page["attempts"][0]["reason"] == "<script>alert(1)</script>"


def test_an_unmounted_state_folder_is_said(ask: Ask, site: Site) -> None:
    (site.state.folder / ".straxflow.json").unlink()
    told = json.loads(ask("/api/status")[2])
    assert "has no identity marker" in told["state_folder"]
    assert next(d for d in told["disks"] if d["kind"] == "state")["problem"]


def log_of(ask: Ask, name: str = NAME) -> tuple[int, str]:
    status, _, body = ask(f"/api/log/{RUN}/raw_records/{name}")
    return status, json.loads(body).get("text", "")


def test_a_log_without_its_colours(ask: Ask) -> None:
    assert log_of(ask) == (200, "one\ntwo <b>\n")


def test_the_part_of_a_log_that_an_attempt_wrote(ask: Ask, site: Site) -> None:
    log = site.state.folder / "logs" / RUN / "raw_records.process.log"
    parts = []
    for minutes in (-60, 0, 60):
        at = (MOMENT + timedelta(minutes=minutes)).astimezone()
        parts.append(f"{at:%F %T},012 INFO process of raw_records, run {RUN}, begins (invocation b)\nwords {minutes}\n")
    log.write_text("before\n" + "".join(parts))
    assert log_of(ask) == (200, parts[1])
    log.write_text("before\n" + parts[0] + parts[2])
    assert log_of(ask)[1].startswith("before")


def test_only_the_end_of_a_long_log(ask: Ask, site: Site) -> None:
    log = site.state.folder / "logs" / RUN / "raw_records.process.log"
    log.write_bytes(b"".join(b"line %d \xff\n" % i for i in range(50_000)))
    status, text = log_of(ask)
    assert status == 200
    assert len(text) < 70_000
    assert text.startswith("…line ")
    assert text.endswith("line 49999 \ufffd\n")


@pytest.mark.fault(
    group="security",
    broken="an attempt file that names a log elsewhere",
    left="nothing of that file shown",
    next="nothing to do",
)
@pytest.mark.parametrize("log", ["", *ELSEWHERE])
def test_a_log_elsewhere_is_not_shown(ask: Ask, site: Site, log: str) -> None:
    (site.state.folder.parent / "secret").write_text("secret")
    (site.state.folder / "secret").write_text("secret")
    attempt(site, log)
    assert log_of(ask) == (404, "")


@pytest.mark.fault(
    group="security",
    broken="a log that is a link or a pipe",
    left="not followed, not waited for",
    next="nothing to do",
)
def test_links_and_pipes_are_not_followed(ask: Ask, site: Site, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "x.log").write_text("secret")
    logs = site.state.folder / "logs"
    (logs / RUN / "link.log").symlink_to(secret / "x.log")
    (logs / "linked").symlink_to(secret)
    os.mkfifo(logs / RUN / "pipe.log")
    for log in (f"logs/{RUN}/link.log", "logs/linked/x.log", f"logs/{RUN}/pipe.log", f"logs/{RUN}"):
        attempt(site, log)
        assert log_of(ask) == (404, "")
    logs.rename(site.state.folder / "moved")
    logs.symlink_to(site.state.folder / "moved")
    attempt(site, f"logs/{RUN}/raw_records.process.log")
    assert log_of(ask) == (404, "")
