"""Judge a folder of strax data by what is on disk, without strax.

strax renames its temporary folder to the final name even after an exception, and exits 0 after reading
damaged input: so the name of a folder, or an exit code, says nothing. Standard library only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from straxflow.errors import Damaged, StepFailed

# the only values in strax metadata that differ between two makings of the same data (strax 0.9 to 2.2)
WRITE_TIMES = frozenset({"writing_started", "writing_ended"})


@dataclass(frozen=True)
class ProductFacts:
    """What a checked folder of strax data holds; times in ns since the epoch, sizes in bytes."""

    folder: str
    run: str
    data_type: str
    lineage_hash: str
    n_chunks: int
    n_records: int
    start: int
    end: int
    files: dict[str, int]
    bytes: int
    compressor: str
    strax_version: str


@dataclass(frozen=True)
class Coverage:
    """The time a product must cover: the run's start and end (ns), and how far it may fall short or go beyond.

    A reader of live data ends with the DAQ's last chunk, so it may go beyond the run's end by a chunk and
    an overlap; the end in the run document may lie a second or two after the last data.
    """

    start: int
    end: int
    may_miss: int
    may_exceed: int


def metadata_name(folder: str) -> str:
    """Name of the metadata file of a folder named `<run>-<type>-<hash>`."""
    parts = folder.split("-")
    if len(parts) != 3:
        raise Damaged(f"{folder} is not named <run>-<data type>-<lineage hash>")
    return f"{parts[1]}-{parts[2]}-metadata.json"


def parse_metadata(where: str, content: bytes) -> dict[str, Any]:
    """Return strax metadata from the content of its file."""
    try:
        metadata = json.loads(content)
    except ValueError as error:
        raise Damaged(f"cannot read the strax metadata {where}: {error}") from error
    if not isinstance(metadata, dict):
        raise Damaged(f"the strax metadata {where} is not a JSON object")
    return metadata


def read_metadata(folder: Path) -> dict[str, Any]:
    """Return the strax metadata of a folder named `<run>-<type>-<hash>`; StepFailed if there is none."""
    path = folder / metadata_name(folder.name)
    try:
        return parse_metadata(str(path), path.read_bytes())
    except FileNotFoundError as error:
        raise StepFailed(f"strax left no metadata: {path} is missing") from error
    except OSError as error:
        raise Damaged(f"cannot read the strax metadata {path}: {error}") from error


def check_strax_folder(folder: Path, coverage: Coverage | None = None) -> ProductFacts:
    """Check that a folder holds one whole data type of one run, and return its facts.

    Raises StepFailed if strax did not finish writing it or it does not cover the run, Damaged if it
    finished but files, chunks and metadata contradict each other. Looks at names, sizes and metadata;
    what is in the files is for checksums to guard.
    """
    metadata = read_metadata(folder)
    # what is no file is told by a size that no file has
    found = {entry.name: entry.stat().st_size if entry.is_file() else -1 for entry in folder.iterdir()}
    return check_strax_files(folder, metadata, found, coverage)


def check_strax_files(
    folder: Path, metadata: dict[str, Any], found: dict[str, int], coverage: Coverage | None = None
) -> ProductFacts:
    """The same of a folder that is elsewhere: by its metadata and the sizes of all its files."""
    if "exception" in metadata:
        lines = str(metadata["exception"]).strip().splitlines() or ["unknown"]
        raise StepFailed(f"strax failed while writing {folder}: {lines[-1]}")
    if "writing_ended" not in metadata:
        raise StepFailed(f"strax did not finish writing {folder}: its metadata has no writing_ended")
    _check_identity(folder, metadata)
    try:
        chunks = sorted(metadata["chunks"], key=lambda chunk: int(chunk["chunk_i"]))
        sizes = _check_chunks(folder, chunks, found)
        facts = ProductFacts(
            folder=folder.name,
            run=str(metadata["run_id"]),
            data_type=metadata["data_type"],
            lineage_hash=metadata["lineage_hash"],
            n_chunks=len(chunks),
            n_records=sum(int(chunk["n"]) for chunk in chunks),
            start=int(chunks[0]["start"]),
            end=int(chunks[-1]["end"]),
            files=sizes,
            bytes=sum(sizes.values()),
            compressor=str(metadata["compressor"]),
            strax_version=str(metadata.get("strax_version", "unknown")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"the strax metadata of {folder} is not as expected: {error!r}") from error
    if coverage is not None:
        _check_coverage(folder, facts, coverage)
    return facts


def _check_identity(folder: Path, metadata: dict[str, Any]) -> None:
    run, data_type, lineage_hash = folder.name.split("-")
    for key, expected in (("run_id", run), ("data_type", data_type), ("lineage_hash", lineage_hash)):
        if str(metadata.get(key)) != expected:
            raise Damaged(f"metadata of {folder}: {key} is {metadata.get(key)!r}, expected {expected!r}")


def _check_chunks(folder: Path, chunks: list[dict[str, Any]], found: dict[str, int]) -> dict[str, int]:
    """Check numbers, times and files of the chunks; return the size of every file in the folder."""
    if not chunks:
        raise StepFailed(f"strax wrote no chunk to {folder}")
    on_disk = {name: size for name, size in found.items() if size >= 0}
    surplus = found.keys() - {metadata_name(folder.name)}
    for number, chunk in enumerate(chunks):
        if int(chunk["chunk_i"]) != number:
            raise Damaged(f"{folder}: chunk {number} is missing or double, found {chunk['chunk_i']}")
        if number and chunk["start"] != chunks[number - 1]["end"]:
            raise Damaged(
                f"{folder}: chunk {number} starts at {chunk['start']} ns, expected the end of the one before, "
                f"{chunks[number - 1]['end']} ns"
            )
        if chunk["end"] < chunk["start"]:
            raise Damaged(f"{folder}: chunk {number} ends at {chunk['end']} ns, before it starts")
        name = chunk.get("filename")
        if not chunk["n"]:
            if name is not None:
                raise Damaged(f"{folder}: chunk {number} has no entries but names the file {name}")
            continue
        if name is None:
            raise Damaged(f"{folder}: chunk {number} has {chunk['n']} entries but names no file")
        if name not in on_disk:
            raise Damaged(f"{folder}: the file {name} of chunk {number} is missing")
        expected = chunk.get("filesize")
        if not on_disk[name] or expected not in (None, on_disk[name]):
            raise Damaged(
                f"{folder}: the file {name} has {on_disk[name]} bytes, expected {expected or 'more than none'}"
            )
        surplus.discard(name)
    if surplus:
        raise Damaged(f"{folder}: files that belong to no chunk: {', '.join(sorted(surplus))}")
    return dict(sorted(on_disk.items()))


def _check_coverage(folder: Path, facts: ProductFacts, run: Coverage) -> None:
    for edge, missing, found, expected in (
        ("start", facts.start - run.start, facts.start, run.start),
        ("end", run.end - facts.end, facts.end, run.end),
    ):
        if -run.may_exceed <= missing <= run.may_miss:
            continue
        late = (edge == "start") == (missing > 0)
        raise StepFailed(
            f"{folder} does not cover its run: it {edge}s {abs(missing) / 1e9:.3f} s too "
            f"{'late' if late else 'early'} (at {found} ns, the run {edge}s at {expected} ns; allowed: "
            f"{run.may_miss / 1e9:.3f} s less, {run.may_exceed / 1e9:.3f} s more)"
        )


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Name where two strax metadata differ, the times of writing aside; [] if they describe the same data.

    A chunk's `filesize` is compared only if both have it: strax leaves it out when it writes in threads,
    and the file's digest says more.
    """
    found = [k for k in sorted({*a, *b} - WRITE_TIMES - {"chunks"}) if a.get(k) != b.get(k)]
    chunks_a, chunks_b = a.get("chunks", []), b.get("chunks", [])
    if len(chunks_a) != len(chunks_b):
        return [*found, f"chunks: {len(chunks_a)} and {len(chunks_b)}"]
    for one, other in zip(_by_number(chunks_a), _by_number(chunks_b), strict=True):
        optional = {"filesize"} - ({*one} & {*other})
        found += [
            f"chunk {one.get('chunk_i')} {k}" for k in sorted({*one, *other} - optional) if one.get(k) != other.get(k)
        ]
    return found


def _by_number(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(chunks, key=lambda chunk: int(chunk["chunk_i"]))


def same_data(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two strax metadata describe the same data (see `differences`)."""
    return not differences(a, b)
