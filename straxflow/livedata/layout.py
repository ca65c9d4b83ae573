"""The folders and files of a run's live data, and what is wrong with their arrangement.

redax (StraxFormatter.cc) writes three files per thread and chunk k in one go: `k`, `k_post` and its copy
`(k+1)_pre`; each first into a folder `..._temp`, then renamed out of it. It leaves the emptied `_temp`
folders behind, skips empty files in a thread's last chunk, fills in zero-byte ones in all chunks before
that, and signs off with a file per thread in THE_END. A thread is `<reader>_<number>`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from straxflow.livedata.problems import Problem

THE_END = "THE_END"
CHUNK = re.compile(r"(\d{6})(_pre|_post)?\Z")
TEMP = "_temp"


@dataclass
class Layout:
    """What lies in a run's folder: file sizes by chunk number and thread, and who signed off."""

    main: dict[int, dict[str, int]] = field(default_factory=dict)
    pre: dict[int, dict[str, int]] = field(default_factory=dict)
    post: dict[int, dict[str, int]] = field(default_factory=dict)
    end: set[str] = field(default_factory=set)
    temp_files: list[str] = field(default_factory=list)
    empty_temp: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def n_chunks(self) -> int:
        """Number of chunks, counting any hole: the last chunk's number plus one."""
        return 1 + max([*self.main, *self.post, *(k - 1 for k in self.pre)], default=-1)


def read_layout(folder: Path) -> Layout:
    """List `folder`, following no link and opening no file."""
    layout = Layout()
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        name = entry.name
        match = CHUNK.match(name)
        known = bool(match) or name == THE_END or name.endswith(TEMP)
        if not known:
            layout.problems.append(Problem(name, "does not belong here", "chunk folders and THE_END only"))
        elif not entry.is_dir(follow_symlinks=False):
            layout.problems.append(Problem(name, _kind(entry), "a folder"))
        elif name.endswith(TEMP):
            inside = sorted(e.name for e in os.scandir(entry.path))
            layout.temp_files += [f"{name}/{n}" for n in inside]
            layout.empty_temp += not inside
        elif match:
            group = {None: layout.main, "_pre": layout.pre, "_post": layout.post}[match[2]]
            group[int(match[1])] = _files(entry, layout.problems)
        else:
            layout.end = set(_files(entry, layout.problems))
    return layout


def reader_of(thread: str) -> str:
    """Give the reader's name of a file `<reader>_<thread>`, as DAQReader does."""
    return thread.rpartition("_")[0]


def signed_off(layout: Layout, processing_threads: Mapping[str, int]) -> bool:
    """Tell whether THE_END lists all threads of every reader."""
    counts = Counter(reader_of(thread) for thread in layout.end)
    return all(counts[reader] >= n for reader, n in processing_threads.items())


def drop_late_chunks(layout: Layout, most: int) -> list[Problem]:
    """Take out of `layout` the chunks that begin after the run, and name them (a run copied into itself
    looks like one)."""
    problems = []
    for suffix, group, limit in (
        ("", layout.main, most),
        ("_post", layout.post, most),
        ("_pre", layout.pre, most + 1),
    ):
        for k in sorted(k for k in group if k >= limit):
            del group[k]
            name = f"{k:06d}{suffix}"
            layout.problems = [p for p in layout.problems if not p.path.startswith(f"{name}/")]
            problems.append(Problem(name, "begins after the run's end", f"at most {most} chunks"))
    return problems


def check_layout(layout: Layout, processing_threads: Mapping[str, int]) -> tuple[list[Problem], list[str]]:
    """Compare the folders with each other and with the threads of the run document.

    Give the problems, and the oddities that redax is known to leave. A thread's files may be absent from
    its last chunk on; that files are missing *there* cannot be told from a thread that fell silent.
    """
    problems = list(layout.problems)
    oddities = []
    problems += _check_threads(layout.end, processing_threads, THE_END)
    problems += [
        Problem(path, "left behind, though every reader has signed off", "no file in a _temp folder")
        for path in layout.temp_files
    ]
    if layout.empty_temp:
        oddities.append(f"{layout.empty_temp} empty _temp folders")
    if 0 in layout.pre:
        problems.append(Problem("000000_pre", "is there", "no _pre before the first chunk"))
    problems += _check_twins(layout)
    problems += _check_series(layout)

    last = layout.n_chunks - 1
    ends = Counter(_last_chunk(layout, thread) for thread in layout.end)
    if len(ends) > 1:
        told = ", ".join(f"{n} in {'none' if k < 0 else f'{k:06d}'}" for k, n in sorted(ends.items()))
        oddities.append(f"threads end in different chunks ({told})")
    if last + 1 in layout.pre:
        oddities.append(f"{last + 1:06d}_pre without its chunk")
    if last == 0 and 0 not in layout.post:
        oddities.append("a single chunk without an overlap: amstrax' DAQReader gives no records for it")
    empty = sum(not size for group in (layout.main, layout.post) for f in group.values() for size in f.values())
    if empty:
        oddities.append(f"{empty} empty files of silent threads")
    return problems, oddities


def _check_threads(names: set[str], processing_threads: Mapping[str, int], where: str) -> list[Problem]:
    counts = Counter(reader_of(name) for name in names)
    problems = [
        Problem(where, f"{counts[reader]} threads of {reader}", f"{n}")
        for reader, n in processing_threads.items()
        if counts[reader] != n
    ]
    problems += [
        Problem(f"{where}/{name}", "comes from an unknown reader", f"one of {', '.join(processing_threads)}")
        for name in sorted(names)
        if reader_of(name) not in processing_threads
    ]
    return problems


def _check_twins(layout: Layout) -> list[Problem]:
    problems = []
    for k in range(layout.n_chunks):
        post, pre = layout.post.get(k), layout.pre.get(k + 1)
        post_name, pre_name = f"{k:06d}_post", f"{k + 1:06d}_pre"
        if post is None and pre is None:
            continue
        if post is None or pre is None:
            gone, there = (post_name, pre_name) if post is None else (pre_name, post_name)
            problems.append(Problem(gone, "missing", f"the twin of {there}"))
            continue
        problems += [Problem(f"{post_name}/{t}", "missing", "the twin of its _pre") for t in sorted(pre.keys() - post)]
        problems += [Problem(f"{pre_name}/{t}", "missing", "the twin of its _post") for t in sorted(post.keys() - pre)]
    return problems


def _check_series(layout: Layout) -> list[Problem]:
    """Find chunks and files that are missing before the end, and threads that never signed off."""
    problems = []
    n = layout.n_chunks
    last_of = {thread: _last_chunk(layout, thread) for thread in layout.end}
    for k in range(n):
        for suffix, group in (("", layout.main), ("_post", layout.post)):
            folder = f"{k:06d}{suffix}"
            if k not in group:
                # a missing _post whose _pre is there was named with the twins
                if k < n - 1 and not (suffix and k + 1 in layout.pre):
                    problems.append(Problem(folder, "missing", f"chunks 000000 to {n - 1:06d} without a hole"))
                continue
            problems += [
                Problem(f"{folder}/{thread}", "missing", "a file of every thread that goes on after this chunk")
                for thread, last in sorted(last_of.items())
                if k < last and thread not in group[k] and not (suffix and thread in layout.pre.get(k + 1, {}))
            ]
            problems += [
                Problem(f"{folder}/{thread}", "surplus file", "only threads that THE_END lists")
                for thread in sorted(group[k].keys() - layout.end)
            ]
    return problems


def _last_chunk(layout: Layout, thread: str) -> int:
    return max((k for g in (layout.main, layout.post) for k, files in g.items() if thread in files), default=-1)


def _files(folder: os.DirEntry[str], problems: list[Problem]) -> dict[str, int]:
    files = {}
    for entry in sorted(os.scandir(folder.path), key=lambda e: e.name):
        if entry.is_file(follow_symlinks=False):
            files[entry.name] = entry.stat(follow_symlinks=False).st_size
        else:
            problems.append(Problem(f"{folder.name}/{entry.name}", _kind(entry), "a regular file"))
    return files


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "is a symbolic link"
    if entry.is_dir(follow_symlinks=False):
        return "is a folder"
    return "is a file" if entry.is_file(follow_symlinks=False) else "is a special file"
