"""Bring live data in: verified rsync into private scratch, format check, publication by rename."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from pathlib import Path

from straxflow.config import Config
from straxflow.daqfolder import run_place
from straxflow.digests import Manifest, digest_file, hash_tree
from straxflow.errors import Damaged, Retryable, StepFailed
from straxflow.expected import rated_bytes
from straxflow.fsio import incoming_name, is_incoming_of, move_content, owner_is_dead, remove_tree, walk_files
from straxflow.livedata import LiveExpectation, LiveReport, NotComplete, Scans, check_live_data, is_complete
from straxflow.livedata.partial import forget_made, keep_good
from straxflow.permissions import grant
from straxflow.publish import SetAside, publish
from straxflow.receipts import LiveFacts, Partial, RunFacts, Transferred
from straxflow.slots import slot
from straxflow.steps.job import Job, Step, log
from straxflow.transport.pull import pull
from straxflow.transport.rsync import Place
from straxflow.transport.store import space_of

POLL_S = 5.0


def transfer(job: Job) -> Transferred:
    """Bring the live data of a run to `folders.live`."""
    config, facts = job.config, job.state.facts(job.run)
    final = config.folders.live / job.run
    earlier = [p for p in config.folders.live.iterdir() if is_incoming_of(p.name, job.run)]
    incoming = config.folders.live / incoming_name(job.run)
    there = [final] if final.is_dir() else []
    _check_room(config, facts, [*earlier, *there])
    incoming.mkdir()
    try:
        links = [*_take_over(earlier, incoming), *there]
        began = time.monotonic()
        with _scans(job, facts, incoming) as scans:
            manifest, waited = _bring_whole(job, facts, incoming, links, scans)
            seconds = time.monotonic() - began - waited
            made_here = None
            if facts.partial:
                manifest, made_here = _keep_good(facts, facts.partial, incoming, manifest)
            check = _check(job, facts, incoming, scans)
        job.fence.check()
        grant(config, incoming)
        # what was pulled is on the disk; not so what was made here to end a partial run
        whole = facts.partial is None
        outcome = publish(incoming, final, lambda there, _: hash_tree(there).rows == manifest.rows, flushed=whole)
    except OSError as error:
        if error.errno == errno.EIO:
            # what a disk failed to take may still look whole in memory: it serves nobody
            remove_tree(incoming)
        raise
    finally:
        with contextlib.suppress(OSError):
            # nothing arrived
            incoming.rmdir()
        if incoming.exists():
            # what arrived serves the next attempt, once this process is gone
            log.info("left %s for the next attempt", incoming.name)
    if isinstance(outcome, SetAside):
        raise Damaged(
            f"run {job.run}: {final} is there already with other files than the DAQ has now; it stays, the new "
            f"copy is at {outcome.aside}; find out which is right and move the other away"
        )
    for folder in earlier:
        if owner_is_dead(folder.name):
            with contextlib.suppress(OSError):
                remove_tree(folder)
    return Transferred(
        run=job.run,
        folder=str(final),
        source=str(_source(job)),
        host=socket.gethostname(),
        algorithm=manifest.algorithm,
        files=manifest.rows,
        bytes=manifest.bytes,
        seconds=round(seconds, 3),
        check=check,
        made_here=made_here,
    )


def _take_over(earlier: list[Path], incoming: Path) -> list[Path]:
    """Go on with what dead attempts left; the folders that stay, of attempts that may live: only to link from."""
    for folder in earlier:
        if owner_is_dead(folder.name):
            log.info("going on with what %s holds", folder.name)
            move_content(folder, incoming)
    forget_made(incoming)
    return [folder for folder in earlier if folder.is_dir()]


def _keep_good(facts: RunFacts, partial: Partial, folder: Path, manifest: Manifest) -> tuple[Manifest, list[str]]:
    """Leave the good chunks of a run that a person closed as partial; what is there now, and what was made here."""
    made = keep_good(folder, partial.chunks, expectation(facts).processing_threads)
    made_rows = [digest_file(folder, path, manifest.algorithm) for path in made]
    kept = [file for file in manifest.files if (folder / file.path).is_file() and file.path not in set(made)]
    log.warning("partial, closed by %s: the first %d chunks are kept, %d files; %d left out",
        partial.by, partial.chunks, len(kept), len(manifest.files) - len(kept))  # fmt: skip
    rows = [(file.path, file.size, file.digest) for file in sorted([*kept, *made_rows])]
    return Manifest.from_rows(manifest.algorithm, rows), made


def _check_room(config: Config, facts: RunFacts, here: list[Path]) -> None:
    """Make sure that a run of the expected size fits; what arrived `here` before is only linked.

    Raises:
        Retryable: if it does not: a disk that runs full stops all transfers, and more.
    """
    free = space_of(config.folders.live).free
    expected = rated_bytes(facts)
    least = config.disks.live.min_free_gb * 1e9
    if free - expected >= least:
        return
    expected -= sum(size for folder in here for _, size in walk_files(folder))
    if free - max(expected, 0) < least:
        raise Retryable(
            f"run {facts.run}: does not fit on the disk of {config.folders.live}: {max(expected, 0) / 1e9:.3g} GB are "
            f"expected by its rate, {free / 1e9:.4g} GB are free, and disks.live.min_free_gb is "
            f"{config.disks.live.min_free_gb:g}; tried again later"
        )


def _source(job: Job) -> Place:
    return run_place(job.config, job.state.facts(job.run))


def _bring_whole(
    job: Job, facts: RunFacts, incoming: Path, links: list[Path], scans: Scans | None
) -> tuple[Manifest, float]:
    """Bring the files until the run is complete; also the seconds spent waiting, with no transfer slot held."""
    config = job.config.transfer
    threads = facts.daq_config.get("processing_threads")
    deadline = time.monotonic() + config.wait_s
    waited = 0.0
    while True:
        asked = time.monotonic()
        with slot(job.state.folder.parent / ".slots", "transfer", config.max_parallel, config.slot_wait_s, log.info):
            waited += time.monotonic() - asked
            manifest = _bring(job, incoming, links, scans)
        if not manifest.files:
            raise NotComplete(f"run {job.run}: there is not one file at {_source(job)}; it will be tried again")
        if not config.check or facts.partial or is_complete(incoming, threads):
            return manifest, waited
        if time.monotonic() + POLL_S > deadline:
            raise NotComplete(
                f"run {job.run}: still being written at {_source(job)} (no whole THE_END, or _temp folders); "
                f"waited {config.wait_s:g} s, it will be tried again"
            )
        log.info("the run is still being written; looking again in %g s", POLL_S)
        time.sleep(POLL_S)
        waited += POLL_S


def _bring(job: Job, incoming: Path, links: list[Path], scans: Scans | None) -> Manifest:
    config = job.config
    told = 0.0

    def progress(received: int) -> None:
        nonlocal told
        if time.monotonic() - told > 10:
            told = time.monotonic()
            log.info("%.0f MB arrived", received / 1e6)

    files = pull(
        _source(job),
        incoming,
        rsync_args=["-a", *config.transfer.rsync_args],
        ssh_options=config.daq.ssh_options,
        link_dests=links,
        idle_s=int(config.transfer.timeout_s),
        retries=config.transfer.retries,
        streams=config.transfer.streams,
        log=log.info,
        progress=progress,
        arrived=scans.arrived if scans else lambda _: None,
    )
    return Manifest.from_rows("xxh128", [(f.path, f.size, f.digest) for f in files])


def _scans(job: Job, facts: RunFacts, folder: Path) -> contextlib.AbstractContextManager[Scans | None]:
    """Look through files as they arrive: most of the check is done when the last one does."""
    if not job.config.transfer.check:
        return contextlib.nullcontext()
    # a second thread, also where one was asked for: what arrived is in the page cache, so it waits for no disk
    return Scans(folder, expectation(facts, job.config.transfer.length_tolerance_s), max(job.threads, 2))


def _check(job: Job, facts: RunFacts, folder: Path, scans: Scans | None) -> LiveFacts | None:
    if scans is None:
        log.info("the format of the live data is not checked (transfer.check is false)")
        return None
    report = check_live_data(folder, scans.expected, scans=scans)
    log.info("live data: %d chunks, %d records, %.1f s", report.n_chunks, report.n_records, report.seconds)
    return as_facts(report)


def as_facts(report: LiveReport) -> LiveFacts:
    """The part of the check's report that the receipt keeps."""
    return LiveFacts(
        chunks=report.n_chunks,
        records=report.n_records,
        bytes_uncompressed=report.bytes_plain,
        seconds=round(report.seconds, 3),
        oddities=list(report.oddities),
    )


def expectation(facts: RunFacts, tolerance_s: float = 2.0) -> LiveExpectation:
    """What the run document says about the live data.

    Raises:
        StepFailed: if it does not say it.
    """
    daq = facts.daq_config
    try:
        return LiveExpectation(
            run=facts.run,
            start=facts.start,
            end=facts.end,
            chunk_length_s=float(daq["strax_chunk_length"]),
            chunk_overlap_s=float(daq["strax_chunk_overlap"]),
            processing_threads={str(k): int(v) for k, v in dict(daq["processing_threads"]).items()},
            samples_per_record=int(daq.get("strax_fragment_payload_bytes", 220)) // 2,
            compressor=str(daq.get("compressor", "lz4")),
            length_tolerance_s=tolerance_s,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StepFailed(
            f"run {facts.run}: daq_config of its run document does not describe the live data ({error!r}); "
            "correct it, or set transfer.check: false"
        ) from None


step = Step("transfer", transfer)
