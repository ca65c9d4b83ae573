"""Whether a product in staging is still what was made."""

from __future__ import annotations

from pathlib import Path

from straxflow.digests import Manifest, describe, hash_tree, verify_tree
from straxflow.errors import Damaged
from straxflow.receipts import Checksums, Processed, Target


def changed(parent: Path, made: Processed, sums: Checksums | None) -> dict[str, str]:
    """What is odd in the folders of a product below `parent`, all of which must be there; by folder, in words.

    They are compared with the manifest, or while there is none with the digest of their publication.
    """
    found = {}
    for target in made.targets.values():
        if sums:
            odd = describe(verify_tree(parent / target.folder, sums.manifest.below(target.folder), cold=False))
        else:
            try:
                odd = not_as_made(target, hash_tree(parent / target.folder, algorithm_of(target)))
            except Damaged as error:
                odd = str(error)
        if odd:
            found[target.folder] = odd
    return found


def algorithm_of(target: Target, default: str = "xxh128") -> str:
    """The algorithm of a target's digest."""
    return target.digest.partition(":")[0] if target.digest else default


def not_as_made(target: Target, found: Manifest) -> str:
    """How the files that are there (or stand in a manifest) differ from those that were made; empty if they do not."""
    if (len(found.files), found.bytes) != (target.files, target.bytes):
        return f"found {len(found.files)} files, {found.bytes} bytes; expected {target.files}, {target.bytes} bytes"
    if target.digest and found.algorithm == algorithm_of(target) and target.digest != found.digest:
        return f"found {found.digest} over all files, expected {target.digest}"
    return ""
