"""Are the data of a run those that another tool made of it? Their files are read, ours are told by their manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from straxflow.config import Config
from straxflow.digests import FileDigest, hash_tree
from straxflow.errors import StraxflowError
from straxflow.receipts import Checksums, Processed, State, Target

Verdict = Literal["same", "differs", "not ours", "not theirs", "unreachable"]
NAMED = 3


@dataclass(frozen=True)
class Compared:
    """What became of the comparison of one data type."""

    run: str
    type: str
    verdict: Verdict
    text: str
    theirs: str | None = None


def compare(config: Config, state: State, run: str, document: Mapping[str, Any]) -> Iterator[Compared]:
    """Compare each data type that we made of a run with what another tool registered of it."""
    mode = state.facts(run).mode if (state.run(run) / "run.json").is_file() else str(document.get("mode"))
    for product in config.products_for(mode):
        made = state.find(run, product, Processed)
        sums = state.find(run, product, Checksums)
        for name in config.targets(product):
            if made is None or sums is None or name not in made.targets:
                yield Compared(run, name, "not ours", f"{product} was not made here yet")
                continue
            target = made.targets[name]
            ours = sums.manifest_of(target.folder).files
            yield _type(config, run, name, target, list(ours), sums.algorithm, document)


def _type(
    config: Config, run: str, name: str, target: Target, ours: list[FileDigest], algorithm: str,
    document: Mapping[str, Any],
) -> Compared:  # fmt: skip
    own = str(config.store.folder / target.folder)
    data = document.get("data")
    entries = [e for e in data if isinstance(e, Mapping) and e.get("type") == name] if isinstance(data, list) else []
    theirs = [e for e in entries if str(e.get("location")).rstrip("/") != own]
    if not theirs:
        return Compared(run, name, "not theirs", "no other tool has registered such data")
    folders = list(dict.fromkeys(folder for entry in theirs for folder in _folders(run, name, entry)))
    if not folders:
        places = ", ".join(sorted({f"{e.get('host')}:{e.get('location')}" for e in theirs}))
        return Compared(run, name, "unreachable", f"not to be read from here: {places}")
    found = [_with(run, target, ours, algorithm, folder, name) for folder in folders]
    # several copies, of several lineages: the one that is like ours counts
    return next((c for c in found if c.verdict == "same"), found[0])


def _folders(run: str, name: str, entry: Mapping[str, Any]) -> list[Path]:
    """Where an entry's files may be: its location is the data's own folder, or the one that holds it."""
    place = Path(str(entry.get("location")))
    if not place.is_absolute():
        return []
    try:
        if place.name.startswith(f"{run}-{name}-"):
            return [place] if place.is_dir() else []
        return sorted(folder for folder in place.glob(f"{run}-{name}-*") if folder.is_dir())
    except OSError:
        return []


def _with(run: str, target: Target, ours: list[FileDigest], algorithm: str, folder: Path, name: str) -> Compared:
    try:
        theirs = hash_tree(folder, algorithm).files
    except (StraxflowError, OSError) as error:
        return Compared(run, name, "unreachable", str(error), str(folder))
    lineage = folder.name.removeprefix(f"{run}-{name}-")
    note = "" if lineage == target.lineage_hash else f"; their lineage is {lineage}, ours {target.lineage_hash}"
    here, there = _data(ours, target.lineage_hash), _data(theirs, lineage)
    odd = sorted(path for path in here.keys() | there.keys() if here.get(path) != there.get(path))
    if not odd:
        total = sum(size for size, _ in here.values())
        return Compared(run, name, "same", f"{len(here)} files, {total} bytes{note}", str(folder))
    words = ", ".join(f"{path} ({_how(here.get(path), there.get(path))})" for path in odd[:NAMED])
    more = f" and {len(odd) - NAMED} more" if len(odd) > NAMED else ""
    return Compared(run, name, "differs", f"{len(odd)} of {len(here)} files: {words}{more}{note}", str(folder))


def _data(files: list[FileDigest] | tuple[FileDigest, ...], lineage: str) -> dict[str, tuple[int, str]]:
    """Size and digest by name without the lineage; metadata, which hold times and hosts, are left out."""
    return {
        file.path.replace(f"-{lineage}", ""): (file.size, file.digest)
        for file in files
        if not file.path.endswith("metadata.json")
    }


def _how(ours: tuple[int, str] | None, theirs: tuple[int, str] | None) -> str:
    if ours is None or theirs is None:
        return "only theirs" if ours is None else "only ours"
    return "other content" if ours[0] == theirs[0] else f"{theirs[0]} bytes, ours {ours[0]}"
