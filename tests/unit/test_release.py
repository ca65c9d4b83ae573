"""Nothing is dropped before the copies that back it were read; every way in which one may be broken."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from straxflow import claimfile
from straxflow.claimfile import Fence
from straxflow.config import Config
from straxflow.digests import Manifest, hash_tree
from straxflow.errors import ClaimLost, StepFailed
from straxflow.folders import init_folders
from straxflow.receipts import (
    Checksums,
    LiveFacts,
    Processed,
    Receipt,
    Registered,
    Released,
    RunFacts,
    State,
    Stored,
    Target,
    Transferred,
    now,
    write,
)
from straxflow.steps import release as step
from straxflow.steps.job import Job

RUN = "000001"
RAW, PEAKS = f"{RUN}-raw-abc", f"{RUN}-peaks-def"


@dataclass
class World:
    """A run that is stored and registered, with a copy of everything everywhere."""

    folder: Path
    job: Job
    retired: list[str]

    def copies(self) -> set[str]:
        places = [f"{top}/{name}" for top in ("staging", "store") for name in (RAW, PEAKS)]
        return {p for p in [*places, f"live/{RUN}", f"daq/{RUN}"] if (self.folder / p).is_dir()}

    def spoil(self, place: str) -> None:
        file = self.folder / place / "one"
        file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])

    def release(self) -> Released:
        return step.release(self.job)


def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records_out: int | None = 5, **settings: Any) -> World:
    config = Config.model_validate(
        {
            "site": "here",
            "folders": {name: str(tmp_path / name) for name in ("state", "live", "staging")},
            "store": {"folder": str(tmp_path / "store")},
            "daq": {"host": "daq", "folder": str(tmp_path / "daq")},
            "runs": {"min_run_number": 1},
            "products": {"raw": {"from": "live"}, "peaks": {"from": "raw"}},
            "strax": {"context": "a:b"},
            **settings,
        }
    )
    state = State(tmp_path / "state" / "online")
    init_folders(config, state)
    for place in (f"daq/{RUN}", f"live/{RUN}", *(f"{top}/{n}" for top in ("staging", "store") for n in (RAW, PEAKS))):
        (tmp_path / place / "sub").mkdir(parents=True)
        (tmp_path / place / "one").write_text("one of " + place.split("/")[-1])
        (tmp_path / place / "sub" / "two").write_text("two")

    def put(product: str, receipt: Receipt) -> None:
        path = state.run(RUN) / product / receipt.name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, receipt)

    put("", RunFacts(run=RUN, number=1, start=now(), end=now(), mode="background"))
    live = hash_tree(tmp_path / "live" / RUN)
    put("live", Transferred(
        run=RUN, folder="", source="", host="", algorithm="xxh128", files=live.rows, bytes=live.bytes, seconds=0,
        check=LiveFacts(chunks=1, records=5, bytes_uncompressed=1, seconds=0),
    ))  # fmt: skip
    for product, source, folder in (("raw", "live", RAW), ("peaks", "raw", PEAKS)):
        found = hash_tree(tmp_path / "staging" / folder)
        manifest = Manifest.from_rows("xxh128", [(f"{folder}/{p}", size, d) for p, size, d in found.rows])
        target = Target(folder=folder, lineage_hash="", chunks=1, records=5, bytes=found.bytes, files=2)
        counted = (5, records_out) if product == "raw" and records_out is not None else (None, None)
        put(product, Processed(
            run=RUN, product=product, source=source, targets={product: target}, settings="", host="", seconds=0,
            cpu_seconds=0, peak_rss_mb=0, records_in=counted[0], records_out=counted[1],
        ))  # fmt: skip
        put(product, Checksums(
            run=RUN, product=product, algorithm="xxh128", files=manifest.rows, list_file="", seconds=0
        ))  # fmt: skip
        put(product, Stored(
            run=RUN, product=product, site="here", location="", folders=[folder], bytes=found.bytes, seconds=0
        ))  # fmt: skip
        put(product, Registered(run=RUN, product=product, entries=[]))
    claimfile.write(state, claimfile.ClaimFile(run=RUN, token=1, batch="b", owner={}))
    retired: list[str] = []
    monkeypatch.setattr(step, "_retire_entry", lambda job: retired.append(job.run))
    fence = Fence.enter(state, RUN, "b")
    return World(tmp_path, Job(config, state, "online", RUN, "live", fence, 1, tmp_path / "log"), retired)


EVERYTHING = {f"{top}/{n}" for top in ("staging", "store") for n in (RAW, PEAKS)} | {f"live/{RUN}", f"daq/{RUN}"}
STAGED = {f"staging/{RAW}", f"staging/{PEAKS}"}
DROP = {"live": "drop"}


def test_all_is_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make(tmp_path, monkeypatch, release=DROP)
    receipt = world.release()
    assert world.copies() == EVERYTHING - STAGED - {f"live/{RUN}"}
    store, live, daq = (f"{tmp_path}/{name}" for name in ("store", f"live/{RUN}", f"daq/{RUN}"))
    assert receipt.dropped == {
        f"{tmp_path}/staging/{RAW}": f"read back: {store}/{RAW}; the live data at {live}",
        f"{tmp_path}/staging/{PEAKS}": f"read back: {store}/{PEAKS}",
        live: f"read back: the DAQ's copy at {daq}; {store}/{RAW}",
    }
    assert receipt.kept == {}
    assert receipt.bytes > 0
    assert world.retired == [RUN]
    assert not list(tmp_path.glob("*/.incoming-*"))
    # once more, as after a kill before the receipt
    again = world.release()
    assert set(again.dropped.values()) == {"was dropped before"}


@pytest.mark.parametrize("how", ["emptied", "gone", "flipped"])
def test_the_daqs_copy_backs_raw_data_where_ours_is_not_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    world = make(tmp_path, monkeypatch)
    live = tmp_path / "live" / RUN
    if how == "flipped":
        world.spoil(f"live/{RUN}")
    else:
        shutil.rmtree(live)
    if how == "emptied":
        live.mkdir()
    receipt = world.release()
    assert "the DAQ's copy" in receipt.dropped[f"{tmp_path}/staging/{RAW}"]
    assert not STAGED & world.copies()


def test_raw_data_stay_in_staging_while_no_live_copy_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make(tmp_path, monkeypatch)
    world.spoil(f"live/{RUN}")
    world.spoil(f"daq/{RUN}")
    with pytest.raises(StepFailed, match=r"the DAQ's copy at .* is not what arrived here: 'one': digest"):
        world.release()
    assert world.copies() == EVERYTHING
    shutil.rmtree(tmp_path / "daq" / RUN)
    with pytest.raises(StepFailed, match="no such source"):
        world.release()
    assert world.copies() == EVERYTHING - {f"daq/{RUN}"}


@pytest.mark.parametrize("product", [RAW, PEAKS])
def test_a_broken_store_copy_keeps_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, product: str) -> None:
    world = make(tmp_path, monkeypatch, release=DROP)
    world.spoil(f"store/{product}")
    with pytest.raises(StepFailed, match="in the store differs from its manifest: 'one': digest"):
        world.release()
    assert {f"staging/{product}", f"live/{RUN}"} <= world.copies()
    assert world.retired == []
    shutil.rmtree(tmp_path / "store")
    with pytest.raises(StepFailed, match="no such folder"):
        world.release()
    assert {f"staging/{product}", f"live/{RUN}"} <= world.copies()


def test_a_copy_that_differs_is_not_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make(tmp_path, monkeypatch, release=DROP)
    world.spoil(f"live/{RUN}")
    world.spoil(f"staging/{PEAKS}")
    receipt = world.release()
    assert world.copies() == EVERYTHING - {f"staging/{RAW}"}
    assert "changed since it arrived" in receipt.kept[f"{tmp_path}/live/{RUN}"]
    assert "not what its manifest says" in receipt.kept[f"{tmp_path}/staging/{PEAKS}"]
    assert world.retired == []


@pytest.mark.parametrize("records_out", [None, 4])
def test_live_data_stay_unless_a_product_has_every_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records_out: int | None
) -> None:
    world = make(tmp_path, monkeypatch, records_out, release=DROP)
    receipt = world.release()
    assert world.copies() == EVERYTHING - STAGED
    assert "every record" in receipt.kept[f"{tmp_path}/live/{RUN}"]


@pytest.mark.parametrize("spoilt", ["differs", "gone", "ours"])
def test_live_data_stay_unless_the_daq_has_them_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoilt: str
) -> None:
    world = make(tmp_path, monkeypatch, release=DROP)
    if spoilt == "differs":
        (tmp_path / "daq" / RUN / "surplus").touch()
    elif spoilt == "gone":
        shutil.rmtree(tmp_path / "daq" / RUN)
    else:
        shutil.copy(tmp_path / "live" / ".straxflow.json", tmp_path / "daq")
    with pytest.raises(StepFailed, match=r"is not what arrived here|no such source|carries straxflow's own marker"):
        world.release()
    assert f"live/{RUN}" in world.copies()
    assert world.retired == []


def test_what_is_configured_to_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    products = {"raw": {"from": "live", "keep_staging": True}, "peaks": {"from": "raw"}}
    world = make(tmp_path, monkeypatch, products=products)
    receipt = world.release()
    assert world.copies() == EVERYTHING - {f"staging/{PEAKS}"}
    assert set(receipt.kept) == {f"{tmp_path}/staging/{RAW}", f"{tmp_path}/live/{RUN}"}


def test_a_run_that_was_taken_over_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make(tmp_path, monkeypatch, release=DROP)
    claimfile.write(world.job.state, claimfile.ClaimFile(run=RUN, token=2, batch="other", owner={}))
    with pytest.raises(ClaimLost, match="taken over by invocation other"):
        world.release()
    assert world.copies() == EVERYTHING
    assert world.retired == []
