"""What must hold after each fault, whatever it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from straxflow.digests import describe, verify_tree
from straxflow.orphans import processes_of
from straxflow.receipts import Checksums, Released, Stored, Transferred, read
from tests.site import Result, Site

ONE_SCREEN = 40
"""Lines of straxflow's own words that a person reads at once."""


def nothing_is_lost(site: Site, done: Iterable[int] = (), others: Iterable[int] = ()) -> None:
    """After a plain run: runs that must be done by now, and others that may be in any state but lost.

    The DAQ's copy is as it was, all that is stored or registered is whole and there once, nothing is left over.
    """
    for number in done:
        assert site.status(number) == "done", site.doc(number).get("processing_status")
        _all_is_there(site, number)
    for number in (*done, *others):
        _live_is_whole(site, number)
        _stored_is_whole(site, number)
        _registered_is_stored(site, number)
        assert "claim" not in site.doc(number).get("straxflow", {}).get("online", {})
        assert not [a for a in site.attempts(f"{number:06d}") if a.ended is None]
    assert site.scratch() == []
    scratch = site.config.folders.scratch_folder
    assert not scratch.exists() or not list(scratch.iterdir())
    logs = (site.state().folder / "logs" / "batches").glob("*.snakemake.log")
    assert not {log: left for log in logs if (left := processes_of(log.name.partition(".")[0]))}


def told_clearly(result: Result, *words: str) -> None:
    """A command that failed: its exit code says so, and each of these words is in what it said; no traceback."""
    assert result.code not in (0, None), result.output
    assert "Traceback" not in result.output, result.output
    for word in words:
        assert word in result.output, f"{word!r} is not in:\n{result.output}"
    own = [line for line in result.output.splitlines() if "straxflow:" in line]
    assert len(own) <= ONE_SCREEN, "\n".join(own)


def _all_is_there(site: Site, number: int) -> None:
    run, products = f"{number:06d}", site.config.products_for(site.doc(number)["mode"])
    wanted = {"run.json", "released.json", "live/transferred.json", "live/registered.json"}
    wanted |= {f"{p}/{n}.json" for p in products for n in ("processed", "checksums", "stored", "registered")}
    assert set(site.receipts(run)) == wanted
    assert sorted(e["type"] for e in _own(site, number)) == sorted(["live", *products])
    for product in products:
        assert len(list((site.folder / "store").glob(f"{run}-{product}-*"))) == 1
    finished = Counter((a.product, a.step) for a in site.attempts(run) if a.outcome == "ok")
    assert finished, "no attempt of it ended well"


def _own(site: Site, number: int) -> list[dict[str, object]]:
    return [e for e in site.doc(number).get("data", []) if e["host"] == site.config.site]


def _live_is_whole(site: Site, number: int) -> None:
    run, state = f"{number:06d}", site.state()
    received = state.find(run, "live", Transferred)
    if received is None:
        return
    file = state.released(run)
    gone = file.is_file() and received.folder in read(file, Released, run).dropped
    for folder in [site.folder / "daq" / run, *([] if gone else [Path(received.folder)])]:
        # rsync may leave out what the DAQ adds later, never what was received
        odd = verify_tree(folder, received.manifest)
        assert not odd, f"{folder}: {describe(odd)}"


def _stored_is_whole(site: Site, number: int) -> None:
    run, state, store = f"{number:06d}", site.state(), site.folder / "store"
    backed = set()
    for product in site.config.products:
        stored = state.find(run, product, Stored)
        if stored is None:
            continue
        manifest = state.get(run, product, Checksums).manifest
        for folder in stored.folders:
            backed.add(folder)
            odd = verify_tree(store / folder, manifest.below(folder))
            assert not odd, f"{folder}: {describe(odd)}"
    # published without a receipt is possible, but only whole: its name was given after it was read back
    there = {path.name for path in store.glob(f"{run}-*")}
    assert backed <= there


def _registered_is_stored(site: Site, number: int) -> None:
    run, state = f"{number:06d}", site.state()
    entries = Counter((str(e["type"]), str(e["location"])) for e in _own(site, number))
    assert not [entry for entry, times in entries.items() if times > 1], entries
    for entry in _own(site, number):
        assert Path(str(entry["location"])).is_dir(), entry
        if entry["type"] == "live":
            continue
        sums = [state.find(run, product, Checksums) for product in site.config.products]
        name = Path(str(entry["location"])).name
        (manifest,) = [m for s in sums if s and (m := s.manifest.below(name)).files]
        assert verify_tree(Path(str(entry["location"])), manifest) == []
