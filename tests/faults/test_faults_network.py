"""The network between the DAQ and here: away, silent, cut at every tenth of a transfer, or asking for passwords."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from straxflow.digests import hash_tree
from straxflow.errors import Retryable
from straxflow.lab.process import free_ports
from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from straxflow.transport import Place, pull
from tests.faults.checks import nothing_is_lost, told_clearly
from tests.faults.conftest import RAW, MakeSite
from tests.faults.proxy import Proxy
from tests.site import Site

PATIENCE = {"timeout_s": 2, "retries": 0}
"""Of the transfer, so that a test need not wait for what never comes."""


def wait_out(site: Site, number: int, *words: str) -> None:
    """A plain run that cannot reach the DAQ: the run waits, uncounted, and says why."""
    before = site.dump_files()
    result = site.snakemake()
    told_clearly(result, f"{number:06d}", *words)
    assert site.status(number) == "pending"
    for word in words:
        assert word in site.reason(number)
    assert "failures" not in site.doc(number)["straxflow"]["online"]
    assert not site.receipts(f"{number:06d}").keys() & {"live/transferred.json"}
    daq = {name: size for name, size in before.items() if name.startswith("daq/")}
    assert {name: size for name, size in site.dump_files().items() if name.startswith("daq/")} == daq


# --- whom ssh reaches --------------------------------------------------------------------------------------


def nobody_listens(site: Site, folder: Path) -> list[str]:
    return [{str(site.sshd.port): str(free_ports(1)[0])}.get(word, word) for word in site.sshd.ssh_options]


def another_host(site: Site, folder: Path) -> list[str]:
    key = folder / "other_host"
    make_key(key)
    (folder / "known").write_text(f"[127.0.0.1]:{site.sshd.port} {key.with_suffix('.pub').read_text()}")
    return ["-o", f"UserKnownHostsFile={folder / 'known'}", *site.sshd.ssh_options]


def a_refused_key(site: Site, folder: Path) -> list[str]:
    make_key(folder / "refused")
    return with_key(site, folder / "refused")


def a_key_with_a_passphrase(site: Site, folder: Path) -> list[str]:
    key = folder / "locked"
    key.write_bytes((site.sshd.folder / "user_key").read_bytes())
    key.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-f", key, "-P", "", "-N", "secret"], check=True)
    return with_key(site, key)


def make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)


def with_key(site: Site, key: Path) -> list[str]:
    own = str(site.sshd.folder / "user_key")
    return [str(key) if word == own else word for word in site.sshd.ssh_options]


@pytest.mark.slow
@pytest.mark.fault(
    group="network",
    broken="the DAQ's host {id}",
    left="nothing; the run waits as pending, with the reason, and it is not counted as a failure",
    next="tries again; as soon as the host is back as it should be, the run is brought in",
)
@pytest.mark.parametrize(
    ("options", "word"),
    [
        pytest.param(nobody_listens, "unreachable", id="refuses connections"),
        pytest.param(another_host, "host key", id="has another key than is known"),
        pytest.param(a_refused_key, "refused our key", id="refuses our key"),
        pytest.param(a_key_with_a_passphrase, "refused our key", id="wants a key that asks for its passphrase"),
    ],
)
def test_a_host_that_cannot_be_entered(
    shut_out: Site, tmp_path: Path, options: Callable[[Site, Path], list[str]], word: str
) -> None:
    shut_out.configure(daq={"ssh_options": options(shut_out, tmp_path)})
    wait_out(shut_out, 1, word)


@pytest.fixture(scope="module")
def shut_out(tmp_path_factory: pytest.TempPathFactory, rundb_server: RunDbServer, sshd: Sshd) -> Iterator[Site]:
    """A site that reaches the DAQ after all tests only, and has its run brought in then."""
    folder = tmp_path_factory.mktemp("shut") / "site"
    site = Site(folder, rundb_server, sshd, settings={"products": RAW, "transfer": PATIENCE})
    site.take(1, "led", 0.5)
    yield site
    site.configure(daq={"ssh_options": site.sshd.ssh_options})
    assert site.snakemake().code == 0
    nothing_is_lost(site, done=[1])
    site.close()


@pytest.mark.slow
@pytest.mark.fault(
    group="network",
    broken="the DAQ's host asks for a password",
    left="nothing; nobody is asked, on whatever terminal snakemake was started; the run waits, uncounted",
    next="tries again; with a key that is taken it is brought in",
)
def test_a_password_is_never_asked_for(lab_folder: Path, make_site: MakeSite) -> None:
    (port,) = free_ports(1)
    asks = f"Port {port}\nMatch LocalPort {port}\nPasswordAuthentication yes\nKbdInteractiveAuthentication yes\n"
    with Sshd(lab_folder / "asking_sshd", extra=f"{asks}PubkeyAuthentication no\n") as sshd:
        site = make_site(sshd=sshd, transfer=PATIENCE)
        asking = [{str(sshd.port): str(port)}.get(word, word) for word in sshd.ssh_options]
        asking += ["-o", f"HostKeyAlias=[127.0.0.1]:{sshd.port}"]
        probe = subprocess.run(["ssh", *asking, sshd.host, "true"], capture_output=True, text=True)
        assert "password" in probe.stderr, "this sshd should ask for one"
        # as a person might have it; straxflow's own BatchMode comes first
        site.configure(daq={"ssh_options": [w.replace("BatchMode=yes", "BatchMode=no") for w in asking]})
        site.take(1, "led", 0.5)
        with_terminal = ["script", "-qec", " ".join(site.argv()), "/dev/null"]
        result = site.command(*with_terminal)
        told_clearly(result, "000001", "refused our key")
        assert "assword:" not in result.output
        assert site.status(1) == "pending"
        site.configure(daq={"ssh_options": sshd.ssh_options})
        assert site.snakemake().code == 0
        nothing_is_lost(site, done=[1])


# --- connections that break or fall silent -----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.fault(
    group="network",
    broken="the connection falls silent {id}; it is not closed",
    left="what had arrived, in hidden scratch; the run waits as pending, uncounted",
    next="keeps what had arrived and brings the rest; the silent one was ended after ssh's ConnectTimeout, or three "
    "unanswered ServerAliveIntervals",
)
@pytest.mark.parametrize(
    ("after", "word"),
    [
        pytest.param(0, "timed out", id="before a word was said"),
        pytest.param(150_000, "connection lost", id="in the middle of the transfer"),
    ],
)
def test_a_connection_that_falls_silent(site: Site, after: int, word: str) -> None:
    site.take(1, "led", 1.0)
    with Proxy(site.sshd.port, silent_after=after) as proxy:
        soon = ["-o", "ConnectTimeout=2", "-o", "ServerAliveInterval=1"]
        site.configure(transfer=PATIENCE, daq={"ssh_options": [*soon, *proxy.ssh_options(site.sshd)]})
        wait_out(site, 1, word)
    site.configure(daq={"ssh_options": site.sshd.ssh_options})
    assert site.snakemake().code == 0
    nothing_is_lost(site, done=[1])


TENTHS = range(10)


@pytest.mark.fault(
    group="network",
    broken="the connection is cut after {tenth} tenths of the transfer",
    left="the files that had arrived, and the part of one",
    next="needs none: the transfer goes on over a new connection, and each file is compared with the DAQ's digest",
)
@pytest.mark.parametrize("tenth", TENTHS)
def test_a_cut_at_each_tenth(sshd: Sshd, tmp_path: Path, source: Path, whole: int, tenth: int) -> None:
    log: list[str] = []
    with Proxy(sshd.port, cuts=[whole * tenth // 10]) as proxy:
        place = Place(str(source), sshd.host)
        options = proxy.ssh_options(sshd)
        files = pull(place, tmp_path / "here", ssh_options=options, pause_s=0.05, log=log.append)
        assert len(proxy.sent) > 1
    assert any("again in" in line for line in log)
    assert tuple(files) == hash_tree(source).files == hash_tree(tmp_path / "here").files


@pytest.mark.fault(
    group="network",
    broken="every connection is cut half-way, again and again",
    left="more files each time",
    next="each try keeps what the ones before brought, and gets further",
)
def test_every_connection_is_cut(sshd: Sshd, tmp_path: Path, source: Path, whole: int) -> None:
    place, earlier = Place(str(source), sshd.host), list[Path]()
    with Proxy(sshd.port, cuts=[whole // 2] * 100) as proxy:
        for tries in range(20):
            target = tmp_path / f"try{tries}"
            try:
                pull(place, target, ssh_options=proxy.ssh_options(sshd), retries=0, link_dests=earlier)
                break
            except Retryable as error:
                assert "connection lost" in str(error)
            earlier.append(target)
    assert earlier
    assert hash_tree(target) == hash_tree(source)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with so many files of such sizes that a tenth is several of them."""
    folder = tmp_path_factory.mktemp("source")
    for number in range(40):
        (folder / f"f{number:02d}").write_bytes(os.urandom(20_000))
    return folder


@pytest.fixture(scope="module")
def whole(sshd: Sshd, source: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    """Bytes that come over the connection in a transfer that nobody disturbs."""
    with Proxy(sshd.port) as proxy:
        target = tmp_path_factory.mktemp("whole") / "here"
        pull(Place(str(source), sshd.host), target, ssh_options=proxy.ssh_options(sshd))
        return sum(proxy.sent)


@pytest.mark.slow
@pytest.mark.fault(
    group="network",
    broken="the connections of ten runs' transfers are cut, each after another tenth, and each try of them",
    left="what had arrived of each run, in hidden scratch; the runs wait as pending, uncounted",
    next="brings all ten in",
)
def test_cuts_in_the_workflow(site: Site) -> None:
    for number in range(1, 11):
        site.take(number, "led", 0.3)
    size = sum(p.stat().st_size for p in (site.folder / "daq" / "000001").rglob("*") if p.is_file())
    with Proxy(site.sshd.port, cuts=[size * tenth // 10 for tenth in range(10)] * 20) as proxy:
        site.configure(transfer=PATIENCE, daq={"ssh_options": proxy.ssh_options(site.sshd)})
        result = site.snakemake()
    told_clearly(result, "connection lost")
    waiting = [n for n in range(1, 11) if site.status(n) == "pending"]
    assert waiting
    for number in waiting:
        assert "failures" not in site.doc(number)["straxflow"]["online"]
    site.configure(daq={"ssh_options": site.sshd.ssh_options})
    assert site.snakemake().code == 0
    nothing_is_lost(site, done=range(1, 11))
