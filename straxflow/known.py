"""Whether data that are there already are what a step once made a manifest of: no copy is a proof of itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from straxflow.digests import ALGORITHMS, Manifest, describe
from straxflow.errors import Damaged
from straxflow.receipts import Checksums, read


def known_manifests(states: Path, run: str, types: Iterable[str]) -> list[Manifest]:
    """Every manifest that names data of these types of a run and stands below the state folders of all campaigns,
    which may share a store: in lists of any algorithm and in receipts, those that were set aside included.

    Raises:
        Damaged: if a list is not readable.
    """
    names = [f"{run}-{data_type}-".encode() for data_type in types]
    found = []
    for folder in sorted(states.glob(f"*/runs/{run}")):
        for algorithm in ALGORITHMS:
            for file in sorted(folder.rglob(f"{algorithm}sums.txt")):
                content = file.read_bytes()
                if any(name in content for name in names):
                    found.append(_listed(file, algorithm, content))
        for file in sorted(folder.rglob(f"{Checksums.name}*")):
            try:
                # to parse that of every other product would take longer than to look
                if any(name in file.read_bytes() for name in names):
                    found.append(read(file, Checksums, run).manifest)
            except (Damaged, FileNotFoundError):
                continue  # to be made again; the list beside it was written before
    return found


def _listed(file: Path, algorithm: str, content: bytes) -> Manifest:
    try:
        # a list tells no sizes, and digests need none
        return Manifest.from_list(algorithm, content, defaultdict(int))
    except Damaged as error:
        raise Damaged(f"{file}: {error}; move it away to go on without it") from None


def unlike_known(known: list[Manifest], folder: str, hashed: Callable[[str], Manifest]) -> str | None:
    """How a data folder, whose manifest by an algorithm is `hashed`, differs from all that is known of it; None if it
    is the same as one of them, or nothing is known."""
    told = []
    for one in known:
        expected = one.below(folder)
        if not expected.files:
            continue
        try:
            found = hashed(expected.algorithm)
        except (Damaged, OSError) as error:
            return str(error)
        if found.digest == expected.digest:
            return None
        sizes = {file.path: file.size for file in found.files}
        rows = [(f.path, sizes.get(f.path, f.size), f.digest) for f in expected.files]
        told.append(Manifest.from_rows(expected.algorithm, rows).differences(found.files))
    # the one that it comes nearest to
    return describe(min(told, key=len)) if told else None
