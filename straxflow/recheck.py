"""Look whether the receipts of a run still hold, and set aside those that do not, so that they are made again."""

from __future__ import annotations

from pathlib import Path

from straxflow.attempts import all_of
from straxflow.config import LIVE, Config
from straxflow.digests import describe, hasher_of, verify_tree
from straxflow.folders import open_store
from straxflow.fsio import set_aside
from straxflow.known import known_manifests, unlike_known
from straxflow.receipts import (
    Checksums,
    Processed,
    Receipt,
    Registered,
    Released,
    RunFacts,
    State,
    Stored,
    Transferred,
    now,
    read,
)
from straxflow.staged import changed
from straxflow.transport.store import Store


def set_aside_stale(config: Config, state: State, run: str) -> list[str]:
    """Set aside receipts whose data are gone, and data here that do not hold, which a person may want to look at;
    called for runs that are claimed, so mostly without receipts.

    Returns:
        a message for each product that did not hold.
    """
    messages, stale = find_stale(config, state, run)
    for path in stale:
        if path.is_dir():
            set_aside(path)
        elif path.is_file():
            path.rename(path.with_name(f"{path.name}.stale-{now():%Y%m%dT%H%M%S}"))
    return messages


def broke_in_store(state: State, run: str, product: str) -> bool:
    """Whether a product's receipt of its store copy was set aside because that copy did not hold."""
    return bool(stale_receipts(state, run, product, Stored))


def stale_receipts(state: State, run: str, product: str, model: type[Receipt]) -> list[Path]:
    """A product's receipts of one kind that were set aside because they did not hold."""
    receipt = state.path(run, product, model)
    return sorted(receipt.parent.glob(f"{receipt.name}.stale-*"))


def find_stale(config: Config, state: State, run: str) -> tuple[list[str], list[Path]]:
    """Messages on what does not hold, and the receipts and folders to set aside for it; reads only.

    The store is read. What is here is only if a step has found something damaged.

    Raises:
        Damaged: if a receipt cannot be trusted.
    """
    messages: list[str] = []
    stale: list[Path] = []
    if not state.run(run).is_dir():
        return messages, stale
    damaged = any(file.attempt.outcome == "damaged" for file in all_of(state, run))
    store: Store | None = None
    products = config.products
    # nobody else may come to read what these say
    for name in (LIVE, *products):
        state.find(run, name, Registered)
    if state.released(run).is_file():
        read(state.released(run), Released, run)
    if (state.run(run) / RunFacts.name).is_file():
        products = {name: products[name] for name in config.products_for(state.facts(run).mode)}
    for product in products:
        stored = state.find(run, product, Stored)
        made = state.find(run, product, Processed)
        if stored:
            store = store or open_store(config)
            store.check_marker("store", config.site)
            gone = [f for f in stored.folders if not _holds(store, state, run, product, f)]
            if gone:
                messages.append(f"{product} is not whole in the store ({', '.join(gone)}): it is stored again")
                stale += [state.path(run, product, model) for model in (Stored, Registered)]
                stale.append(state.released(run))
                stored = None
        if made and not stored:
            missing = [t.folder for t in made.targets.values() if not (config.folders.staging / t.folder).is_dir()]
            if missing:
                messages.append(f"{product} is not in staging ({', '.join(missing)}): it is made again")
                stale += [state.path(run, product, model) for model in (Processed, Checksums)]
            elif damaged and (odd := _odd_in_staging(config, made, state.find(run, product, Checksums))):
                messages += [f"{name} in staging changed since it was made ({odd[name]}): made again" for name in odd]
                stale += [state.path(run, product, model) for model in (Processed, Checksums)]
                stale += [config.folders.staging / name for name in odd]
    needs_live = any(
        p.source == LIVE and ((path := state.path(run, name, Processed)) in stale or not path.is_file())
        for name, p in products.items()
    )
    transferred = state.path(run, LIVE, Transferred)
    if needs_live and transferred.is_file() and not (config.folders.live / run).is_dir():
        messages.append("its live data are gone: they are brought again")
        stale.append(transferred)
    elif needs_live and damaged and (received := state.find(run, LIVE, Transferred)):
        folder = config.folders.live / run
        if differences := verify_tree(folder, received.manifest, cold=False):
            messages.append(f"its live data changed since they arrived ({describe(differences)}): brought again")
            stale += [transferred, folder]
    return messages, stale


def _odd_in_staging(config: Config, made: Processed, sums: Checksums | None) -> dict[str, str]:
    """What is odd in the staging folders of a product, by folder; of an adopted one its digest is no proof."""
    odd = changed(config.folders.staging, made, sums)
    known = known_manifests(config.folders.state, made.run, made.targets) if made.adopted else []
    for name in [target.folder for target in made.targets.values() if target.folder not in odd]:
        if why := unlike_known(known, name, hasher_of(config.folders.staging / name)):
            odd[name] = why
    return odd


def _holds(store: Store, state: State, run: str, product: str, folder: str) -> bool:
    """Whether a product stands in the store, every file with the digest of its manifest."""
    sums = state.find(run, product, Checksums)
    stored = state.find(run, product, Stored)
    if sums is None or stored is None or not store.exists(folder):
        return False
    odd = store.verify(folder, stored.manifest(sums).below(folder), cold=False)
    # an adopted copy was made at another time, which its metadata tell
    may_differ = stored.tells_other_times(folder)
    return all(may_differ and d.kind != "missing" and d.path.endswith("-metadata.json") for d in odd)
