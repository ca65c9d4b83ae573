"""What must never happen, made to happen by the literal command line: no copy is dropped that others do not back,
nothing damaged is published, nobody's word in a run document is overwritten, one bad run harms no other."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from straxflow.batch import KEPT
from straxflow.errors import ConfigError
from straxflow.invocation import Invocation
from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from straxflow.owner import Owner
from straxflow.rundb.claims import Claimer
from straxflow.rundb.client import connect
from straxflow.transport import open_store
from tests.site import QUICK_PRODUCTS, Site

MakeSite = Callable[..., Site]
RAW = {"raw": QUICK_PRODUCTS["raw"]}


@pytest.fixture
def make_site(tmp_path: Path, rundb_server: RunDbServer, sshd: Sshd) -> Iterator[MakeSite]:
    sites: list[Site] = []

    def make(**settings: Any) -> Site:
        sites.append(Site(tmp_path / f"site{len(sites)}", rundb_server, sshd, settings={"products": RAW, **settings}))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


def command(line: str, source: str = "live", **more: Any) -> dict[str, Any]:
    return {"from": source, "kind": "command", "command": line, **more}


def waiting(flag: Path) -> dict[str, Any]:
    """A product that is made as soon as a file is there."""
    line = f"sh -c 'until test -e {flag}; do sleep 0.1; done; cat {{source}}/{{run}}/*/* > {{output}}/data'"
    return {"raw": command(line)}


def target(number: int, receipt: str) -> str:
    return f"runs/{number:06d}/{receipt}"


def flip(file: Path) -> Path:
    """Flip one bit; size and times stay."""
    info = file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))
    return file


def largest(folder: Path) -> Path:
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def own_entries(site: Site, number: int) -> list[str]:
    return sorted(e["type"] for e in site.doc(number)["data"] if e["host"] == "testsite")


def part(site: Site, number: int) -> dict[str, Any]:
    found: dict[str, Any] = site.doc(number)["straxflow"]["online"]
    return found


def outcomes(site: Site, number: int, step: str) -> list[str | None]:
    return [a.outcome for a in site.attempts(f"{number:06d}") if a.step == step]


def test_what_the_daq_lost_after_a_killed_transfer_waits_for_a_person(make_site: MakeSite) -> None:
    site = make_site()
    site.take(1, "led", 0.5)
    daq, live = site.folder / "daq/000001", site.folder / "live"
    words = "import os, sys; from straxflow.fsio import incoming_name; os.mkdir(incoming_name('000001'))"
    subprocess.run([sys.executable, "-c", words], cwd=live, check=True)
    (left,) = live.glob(".incoming-*")
    subprocess.run(["cp", "-a", f"{daq}/.", left], check=True)
    lost = largest(daq)
    name, content = str(lost.relative_to(daq)), lost.read_bytes()
    lost.unlink()
    assert site.snakemake().code == 1
    assert site.status(1) == "failed"
    (aside,) = live.glob(".differs-000001~*")
    for word in (name, str(aside), "may be the last copies"):
        assert word in site.reason(1)
    assert site.dry_run().jobs == []
    assert contents(aside) == {name: content}
    shutil.copy2(aside / name, lost)
    site.runs.update_one({"number": 1}, {"$set": {"processing_status": "pending"}})
    done = site.snakemake()
    assert done.code == 0, done.output
    assert site.status(1) == "done"
    assert aside.is_dir()


@pytest.mark.fault(
    group="disks",
    broken="the DAQ's folder is configured, or mounted, as this site's own live folder",
    left="everything: a copy is no proof of itself",
    next="is refused, or fails the release, until the configuration is right",
)
@pytest.mark.slow
def test_the_daqs_folder_is_not_our_own(make_site: MakeSite) -> None:
    # strax tells that every record came out again, which a live copy must be backed by
    site = make_site(release={"live": "drop"}, products={"raw_records": {"from": "live"}})
    daq = dict(site.settings["daq"])
    site.take(1, "led", 0.5)
    shutil.copytree(site.folder / "daq" / "000001", site.folder / "live" / "000001")
    before = contents(site.folder / "live")

    site.settings["daq"] = {"host": daq["host"], "folder": str(site.folder / "live")}
    site.configure()
    with pytest.raises(ConfigError, match="one of this site's own folders"):
        _ = site.config
    refused = site.snakemake()
    assert refused.code != 0
    assert "one of this site's own folders" in refused.output
    assert (refused.jobs, "Traceback" in refused.output) == ([], False)

    # by ssh to oneself no configuration can tell, but the folder's marker can
    site.settings["daq"] = {**daq, "folder": str(site.folder / "live")}
    site.configure()
    result = site.snakemake()
    assert result.code != 0
    assert "carries straxflow's own marker: it is no other copy" in result.output
    assert site.status(1) == "failed"
    assert "own marker" in site.reason(1)
    assert contents(site.folder / "live") == before
    assert "live" in own_entries(site, 1)
    assert "deleted_data" not in site.doc(1) or not site.doc(1)["deleted_data"]
    assert "released.json" not in site.receipts("000001")


@pytest.mark.slow
def test_a_new_product_that_fails_and_a_forced_target_that_fails(make_site: MakeSite) -> None:
    site = make_site()
    for number in (1, 2):
        site.take(number, "led", 0.5)
    first = site.snakemake()
    assert first.code == 0, first.output
    earlier = site.doc(2)
    site.configure(products={"raw": command("false"), "odd": command("false", "raw")})
    site.runs.update_one({"number": 1}, {"$set": {"processing_status": "pending"}})
    failed = site.snakemake()
    assert failed.code != 0
    assert site.status(1) == "failed"
    assert "process of odd" in site.reason(1)
    assert site.doc(2) == earlier

    # a run that is done, of which a person forces one target in vain: its document says what it said
    forced = site.snakemake(target(2, "raw/processed.json"), "-R", "process")
    assert forced.code != 0
    assert "the command of raw failed" in forced.output
    assert site.doc(2)["processing_status"] == earlier["processing_status"]
    assert site.doc(2)["data"] == earlier["data"]
    assert "claim" not in part(site, 2)
    assert "failures" not in part(site, 2)


@pytest.mark.fault(
    group="damage",
    broken="a bit flipped in the live copy here, or in a product in staging",
    left="the other runs done; of these nothing stored or registered",
    next="nothing; once a person sets them to pending, what is damaged is brought or made again",
)
@pytest.mark.slow
def test_a_flipped_bit_goes_nowhere(make_site: MakeSite) -> None:
    site = make_site(products=QUICK_PRODUCTS)
    for number in (1, 2, 3):
        site.take(number, size_mb=0.5)
    begun = site.snakemake(target(1, "live/registered.json"), target(2, "raw/checksums.json"))
    assert begun.code == 0, begun.output
    in_live = flip(largest(site.folder / "live" / "000001"))
    (staged,) = (site.folder / "staging").glob("000002-raw-*")
    in_staging = flip(largest(staged))
    result = site.snakemake()
    assert result.code != 0
    assert [site.status(n) for n in (1, 2, 3)] == ["failed", "failed", "done"]
    assert str(in_live.relative_to(site.folder / "live" / "000001")) in site.reason(1)
    assert str(in_staging.relative_to(staged)) in site.reason(2)
    for number, step in ((1, "process"), (2, "move_out")):
        assert "damaged" in outcomes(site, number, step)
        assert not list((site.folder / "store").glob(f"{number:06d}-*"))
        assert not {"raw", "sums"} & set(own_entries(site, number))
    assert not list((site.folder / "staging").glob("000001-*"))
    # the product made from it is not made either
    sums = [a for a in site.attempts("000002") if (a.product, a.step) == ("sums", "process")]
    assert [a.outcome for a in sums] == ["damaged"]
    assert str(in_staging.relative_to(staged)) in str(sums[0].reason)
    assert not list((site.folder / "staging").glob("000002-sums-*"))
    assert site.dry_run().jobs == []


@pytest.mark.fault(
    group="disks",
    broken="the DAQ is away, or has lost a run, as its staging copy is to be dropped",
    left="the staging copy",
    next="drops it as soon as another copy of the live data was read again",
)
@pytest.mark.slow
def test_staging_stays_until_a_copy_of_the_live_data_is_read_back(make_site: MakeSite) -> None:
    site = make_site()
    daq = dict(site.settings["daq"])
    for number in (1, 2):
        site.take(number, "led", 0.5)
    names = [target(n, r) for n in (1, 2) for r in ("raw/registered.json", "live/registered.json")]
    begun = site.snakemake(*names)
    assert begun.code == 0, begun.output
    staged = contents(site.folder / "staging")
    for number in (1, 2):
        for path in (site.folder / "live" / f"{number:06d}").iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    # nobody knows while the DAQ is away
    options = [{str(site.sshd.port): "1"}.get(word, word) for word in daq["ssh_options"]]
    site.configure(daq={"ssh_options": options})
    away = site.snakemake()
    assert away.code != 0
    for number in (1, 2):
        assert site.status(number) == "pending"
        assert "unreachable" in site.reason(number)
        assert "failures" not in part(site, number)
        assert outcomes(site, number, "release") == ["retry"]
    assert contents(site.folder / "staging") == staged

    # it is back, but lost run 1
    site.configure(daq=daq)
    lost = (site.folder / "daq" / "000001").rename(site.folder / "lost")
    result = site.snakemake()
    assert result.code != 0
    assert (site.status(1), site.status(2)) == ("failed", "done")
    assert "no such source" in site.reason(1)
    assert "release of live" in site.reason(1)
    assert "released.json" not in site.receipts("000001")
    assert {n: v for n, v in staged.items() if not n.startswith("000002-raw")} == contents(site.folder / "staging")
    (dropped,) = site.receipts("000002")["released.json"]["dropped"].items()
    assert dropped[0].startswith(f"{site.folder}/staging/000002-raw-")
    assert dropped[1].startswith(f"read back: {site.folder}/store/000002-raw-")
    assert f"the DAQ's copy at {daq['ssh']}:{site.folder}/daq/000002" in dropped[1]

    lost.rename(site.folder / "daq" / "000001")
    mended = site.snakemake()
    assert mended.code == 0, mended.output
    assert site.status(1) == "done"
    assert not list((site.folder / "staging").glob("0*"))


@pytest.mark.fault(
    group="damage",
    broken="files missing or changed in the store, long after the staging copy was dropped",
    left="the broken copy, set aside",
    next="makes the product again from its source, once the run is set to pending",
)
@pytest.mark.slow
def test_what_broke_in_the_store_is_made_and_stored_again(make_site: MakeSite) -> None:
    line = "sh -c 'cat {source}/{run}/*/* > {output}/data && echo whole > {output}/x-metadata.json'"
    site = make_site(products={"raw": command(line)})
    for number in (1, 2, 3, 4):
        site.take(number, "led", 0.5)
    first = site.snakemake()
    assert first.code == 0, first.output
    store = site.folder / "store"
    whole = contents(store)
    (one, two, three, four) = sorted(store.glob("0*"))
    (one / "x-metadata.json").unlink()
    (two / "data").unlink()
    flip(three / "data")
    assert four.is_dir()
    site.runs.update_many({}, {"$set": {"processing_status": "pending"}})
    again = site.snakemake()
    assert again.code == 0, again.output
    assert [site.status(n) for n in (1, 2, 3, 4)] == ["done"] * 4
    assert {n: v for n, v in contents(store).items() if not n.startswith(".differs-")} == whole
    # what was there is kept for a person to look at
    assert len(list(store.glob(".differs-*"))) == 3
    assert not [job for job in again.jobs if job.endswith("000004/raw")]
    for number in (1, 2, 3):
        assert own_entries(site, number) == ["live", "raw"]


@pytest.mark.fault(
    group="rundb",
    broken="two documents with one number, a run without a single file, a run below the lowest number",
    left="these documents to the letter; the message says what to correct",
    next="the same, until they are corrected",
)
@pytest.mark.slow
def test_runs_that_cannot_be_claimed_or_brought(make_site: MakeSite) -> None:
    site = make_site(transfer={"check": False}, runs={"max_run_number": 5}, failures={"backoff_s": 600})
    site.document(1)
    (site.folder / "daq" / "000001").mkdir()
    site.document(2)
    site.document(2)
    site.document(9)
    untouched = list(site.runs.find({"number": {"$ne": 1}}).sort("_id", 1))
    everything = site.dump_database()

    # without its hooks nobody would renew the claims
    unhooked = site.snakemake("--no-hooks")
    assert unhooked.code != 0
    assert "snakemake was started without its hooks" in unhooked.output
    named = site.snakemake("--no-hooks", target(1, "live/registered.json"))
    assert named.code != 0
    assert "snakemake was started without its hooks" in named.output
    assert site.dump_database() == everything

    result = site.snakemake()
    assert result.code != 0
    assert "there is not one file at" in result.output
    assert "run 2: two run documents have this number" in result.output
    assert site.status(1) == "pending"
    assert "not one file" in site.reason(1)
    assert "failures" not in part(site, 1)
    assert not (site.folder / "live" / "000001").exists()
    assert set(site.receipts("000001")) == {"run.json"}
    for number, words in ((2, "two run documents have this number"), (9, "lies outside of runs.min_run_number")):
        refused = site.snakemake(target(number, "live/registered.json"))
        assert refused.code != 0
        assert words in refused.output
        assert (refused.jobs, "Traceback" in refused.output) == ([], False)
    assert list(site.runs.find({"number": {"$ne": 1}}).sort("_id", 1)) == untouched


@pytest.mark.fault(
    group="damage",
    broken="receipts cut short or of a later version, a program that leaves an empty file",
    left="the other runs done; these failed with the file named",
    next="the same, until the receipt is removed",
)
@pytest.mark.slow
def test_bad_receipts_and_empty_files_fail_their_run_alone(make_site: MakeSite) -> None:
    empty = command("sh -c 'echo x > {output}/full; touch {output}/hollow'", modes={"include": ["led"]})
    site = make_site(products=RAW | {"empty": empty})
    for number in (1, 2, 3):
        site.take(number, size_mb=0.5)
    site.take(4, "led", 0.5)
    begun = site.snakemake(*(target(n, "live/transferred.json") for n in (1, 2)))
    assert begun.code == 0, begun.output
    later, cut = (site.state().run(f"{n:06d}") / "live" / "transferred.json" for n in (1, 2))
    later.write_text(later.read_text().replace('"schema_version": 1', '"schema_version": 99'))
    cut.write_text(cut.read_text()[:300])
    result = site.snakemake()
    assert result.code != 0
    assert "Traceback" not in result.output
    assert [site.status(n) for n in (1, 2, 3, 4)] == ["failed", "failed", "done", "failed"]
    assert "schema version 99, this straxflow knows up to 1: upgrade it" in site.reason(1)
    assert f"{cut}: not a valid receipt" in site.reason(2)
    assert "left an empty file, 'hollow'" in site.reason(4)
    assert not list((site.folder / "staging").glob("*-empty-*"))
    assert not list((site.folder / "store").glob("*-empty-*"))


@pytest.mark.slow
def test_a_published_product_without_receipt_is_adopted_and_the_archive_stays(make_site: MakeSite) -> None:
    site = make_site(products={"raw": command("sh -c 'head -c 1000 /dev/urandom > {output}/noise'")})
    for number in (1, 2, 3):
        site.take(number, "led", 0.5)
    words = {2: "done", 3: {"status": "done", "by": "another tool", "n": 3}}
    for number, word in words.items():
        site.runs.update_one({"number": number}, {"$set": {"processing_status": word}})
    begun = site.snakemake(target(1, "raw/processed.json"), *(target(n, "live/transferred.json") for n in (2, 3)))
    assert begun.code == 0, begun.output
    assert {n: site.doc(n)["processing_status"] for n in words} == words
    archive = list(site.runs.find({"number": {"$gt": 1}}).sort("_id", 1))
    made = {n: v for n, v in contents(site.folder / "staging").items() if n.startswith("000001-raw")}

    # as a kill leaves it between the rename and the receipt
    site.forget("000001", "raw/processed.json")
    result = site.snakemake()
    assert result.code == 0, result.output
    assert site.status(1) == "done"
    assert {n: v for n, v in contents(site.folder / "store").items() if n.startswith("0")} == made
    assert site.receipts("000001")["raw/processed.json"]["adopted"]
    assert not any("00000" + n in job for n in "23" for job in result.jobs)
    assert list(site.runs.find({"number": {"$gt": 1}}).sort("_id", 1)) == archive
    assert site.scratch() == []


@pytest.mark.fault(
    group="rundb",
    broken="a state written by a person while the run is worked on",
    left="the person's word",
    next="does what it says",
)
@pytest.mark.slow
def test_a_persons_word_written_meanwhile_stays(make_site: MakeSite) -> None:
    site = make_site()
    go = site.folder / "go"
    site.configure(products=waiting(go))
    for number in (1, 2):
        site.take(number, "led", 0.5)
    with site.background() as running:
        running.until(lambda: all("process" in [a.step for a in site.attempts(r)] for r in ("000001", "000002")))
        word = {"status": "abandoned", "by": "a person"}
        site.runs.update_one({"number": 1}, {"$set": {"processing_status": word}})
        site.runs.update_one({"number": 2}, {"$set": {"processing_status": "pending"}})
        go.touch()
        result = running.wait()
    assert result.code == 0, result.output
    assert (site.doc(1)["processing_status"], site.doc(2)["processing_status"]) == (word, "pending")
    assert not [n for n in (1, 2) if "claim" in part(site, n)]
    again = site.snakemake()
    assert (again.code, again.jobs) == (0, [])
    assert site.doc(1)["processing_status"] == word
    assert site.status(2) == "done"


@pytest.mark.slow
def test_ctrl_c_and_sigterm_are_no_failures(make_site: MakeSite) -> None:
    site = make_site(failures={"backoff_s": 60})
    go = site.folder / "go"
    site.configure(products=waiting(go))
    for number in (1, 2, 3):
        site.take(number, "led", 0.5)

    def tried() -> list[str | None]:
        return sorted((o for n in (1, 2, 3) for o in outcomes(site, n, "process")), key=str)

    def all_just_pending() -> None:
        # also the run that the invocation did not come to
        for number in (1, 2, 3):
            assert site.status(number) == "pending"
            assert "claim" not in part(site, number)
            assert not {"failures", "waits", "wait_until", "due"} & set(part(site, number))

    for times, number in enumerate((signal.SIGINT, signal.SIGTERM)):
        with site.background("--cores", "2") as running:
            running.until(lambda: tried().count(None) == 2)
            time.sleep(0.5)  # the commands themselves run
            os.killpg(running.process.pid, number)
            result = running.wait(180)
        assert result.code != 0
        assert "Traceback" not in result.output, result.output
        assert tried() == ["stopped"] * 2 * (times + 1), result.output
        all_just_pending()

    # to snakemake alone it means: finish what runs, begin nothing more
    with site.background("--cores", "2") as running:
        running.until(lambda: tried().count(None) == 2)
        os.kill(running.process.pid, signal.SIGTERM)
        running.until(lambda: "Will exit after finishing" in running.output)
        go.touch()
        result = running.wait(180)
    assert "Traceback" not in result.output, result.output
    assert tried() == ["ok"] * 2 + ["stopped"] * 4
    all_just_pending()

    result = site.snakemake()
    assert result.code == 0, result.output
    assert [site.status(number) for number in (1, 2, 3)] == ["done"] * 3
    assert tried() == ["ok"] * 3 + ["stopped"] * 4
    assert [outcomes(site, n, "transfer").count("ok") for n in (1, 2, 3)] == [1, 1, 1]
    assert site.scratch() == []


def test_a_claim_job_that_died_finds_its_claims_again(make_site: MakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    site = make_site()
    for number in (1, 2, 3):
        site.document(number)
    config, state = site.config, site.state()
    here = Owner.current()
    dead = Owner(here.host, here.boot, here.pid, here.start - 1)
    with connect(config) as db:
        Claimer(db, config, "online", "dead", dead).claim_pending(lambda run: run == "000002", print)
        claimer = Claimer(db, config, "online", "mine", here)
        first = claimer.claim_pending(lambda _: True, print)
        claimed = site.dump_database()
        again = claimer.claim_pending(lambda _: True, print)
        assert site.dump_database() == claimed
    assert sorted((c.run.id, c.token, c.taken_from) for c in first) == [
        ("000001", 1, None), ("000002", 2, "dead"), ("000003", 1, None)
    ]  # fmt: skip
    # also from whom a run was taken: what that one left running is still to be stopped
    assert {(c.run.id, c.token, c.taken_from) for c in first} == {(c.run.id, c.token, c.taken_from) for c in again}

    monkeypatch.setenv(KEPT, "mine")
    found = [
        Invocation(config, state, "online", "mine").claim_batch(state.folder / "batches" / name)
        for name in ("a.json", "b.json")
    ]
    for batch in found:
        assert sorted((r.run, r.token) for r in batch.runs) == [("000001", 1), ("000002", 2), ("000003", 1)]
        assert batch.problems == []


@pytest.mark.parametrize("far", [False, True])
def test_a_broken_copy_is_set_aside_whole(tmp_path: Path, sshd: Sshd, far: bool) -> None:
    store = open_store(tmp_path, sshd.host, sshd.ssh_options) if far else open_store(tmp_path, None, [])
    (tmp_path / "000001-raw-abc" / "sub").mkdir(parents=True)
    (tmp_path / "000001-raw-abc" / "sub" / "file").write_text("x")
    hidden = store.set_aside("000001-raw-abc")
    assert not store.exists("000001-raw-abc")
    assert hidden.startswith(".differs-000001-raw-abc~")
    assert contents(tmp_path / hidden) == {"sub/file": b"x"}
