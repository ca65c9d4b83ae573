"""The good chunks of a run whose DAQ crashed: which they are, and a copy of them that reads like a whole run.

A thread of redax writes its files of a chunk in one go, and fills in empty ones for earlier chunks only when it
writes a later one. So a chunk is good if every thread that ever wrote has its files in it; what came later, and the
last chunk of a thread that then fell silent, cannot be told from a loss.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from straxflow.livedata.layout import CHUNK, TEMP, THE_END, Layout, read_layout, reader_of, signed_off

CLOSED = "closed by hand\n"
"""What a file of THE_END says that no reader wrote."""


@dataclass(frozen=True)
class Found:
    """What a DAQ left of a run: `good` chunks from the start on, of `begun`; `whole` if every reader signed off."""

    good: int
    begun: int
    threads: tuple[str, ...]
    whole: bool


def layout_of(files: Iterable[tuple[str, int]]) -> Layout:
    """A layout from a listing, paths relative to the run's folder; what belongs to no chunk is passed over."""
    layout = Layout()
    for path, size in files:
        folder, _, name = path.partition("/")
        if match := CHUNK.match(folder):
            group = {None: layout.main, "_pre": layout.pre, "_post": layout.post}[match[2]]
            group.setdefault(int(match[1]), {})[name] = size
        elif folder == THE_END:
            layout.end.add(name)
        elif folder.endswith(TEMP):
            layout.temp_files.append(path)
    return layout


def good_chunks(layout: Layout, processing_threads: Mapping[str, int]) -> Found:
    """How many chunks from the start on are good."""
    groups = (layout.main, layout.post, layout.pre)
    threads = sorted({thread for group in groups for files in group.values() for thread in files})
    good = 0
    while good < layout.n_chunks and all(_has(layout, good, thread) for thread in threads):
        good += 1
    whole = signed_off(layout, processing_threads) and bool(layout.end) and not layout.temp_files
    # of files that a crash of the machine emptied the names are left
    filled = [k for k in range(good) if any((*layout.main.get(k, {}).values(), *layout.post.get(k, {}).values()))]
    if filled and not whole:
        good = filled[-1] + 1
    return Found(good, layout.n_chunks, tuple(threads), whole)


def _has(layout: Layout, chunk: int, thread: str) -> bool:
    post, pre = layout.post.get(chunk, {}).get(thread), layout.pre.get(chunk + 1, {}).get(thread)
    return thread in layout.main.get(chunk, {}) and post is not None and post == pre


def keep_good(folder: Path, chunks: int, processing_threads: Mapping[str, int]) -> list[str]:
    """Make a private copy of a crashed run read like a whole one of so many chunks: drop what comes after, end it with
    an empty chunk, which readers need after a full overlap, and sign off for all threads.

    Returns:
        the paths of the files that were made, relative to `folder`.
    """
    layout = read_layout(folder)
    for entry in sorted(folder.iterdir()):
        match = CHUNK.match(entry.name)
        limit = chunks + 1 if match and match[2] == "_pre" else chunks
        if not match or int(match[1]) >= limit:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    threads = sorted({thread for files in layout.main.values() for thread in files})
    seen = Counter(map(reader_of, threads))
    silent = [f"{reader}_silent{i}" for reader, n in processing_threads.items() for i in range(n - seen[reader])]
    made = []
    # the signatures first: by them `forget_made` knows that the last chunk is made too
    for name, words, here in ((THE_END, CLOSED, threads + silent), (f"{chunks:06d}", "", threads)):
        (folder / name).mkdir()
        for thread in here:
            (folder / name / thread).write_text(words)
            made.append(f"{name}/{thread}")
    return made


def forget_made(folder: Path) -> None:
    """Remove what `keep_good` made in an attempt that was then killed: no DAQ has it, or has lost it."""
    signed = [path for path in (folder / THE_END).glob("*") if path.read_bytes() == CLOSED.encode()]
    if not signed:
        return
    last = folder / f"{max(read_layout(folder).main, default=0):06d}"
    for path in [*(path for path in last.glob("*") if path.stat().st_size == 0), *signed]:
        path.unlink()
    for emptied in (last, folder / THE_END):
        with suppress(OSError):
            emptied.rmdir()


def made_in(paths: Iterable[str], chunks: int) -> list[str]:
    """Those of the files of such a copy that `keep_good` made."""
    return [path for path in paths if path.startswith((f"{chunks:06d}/", f"{THE_END}/"))]
