"""One strax job from request to result."""

from __future__ import annotations

import resource
import socket
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from straxflow.errors import StraxflowError
from straxflow.straxjob import compute, context, storage
from straxflow.straxjob.request import Request
from straxflow.straxjob.validate import check_strax_folder
from straxflow.versions import versions


def find_stored(request: Request, hashes: dict[str, str]) -> dict[str, Path]:
    """Return the folders of targets that a store already holds, whole."""
    found = {}
    for data_type, lineage_hash in hashes.items():
        for root in request.existing_folders:
            folder = root / request.folder_name(data_type, lineage_hash)
            if folder in request.unfit_folders:
                continue
            try:
                check_strax_folder(folder)
            except StraxflowError:
                continue  # not there, or broken: then it is made anew, and publishing will tell
            found[data_type] = folder
            break
    return found


def lineage_only(request: Request) -> dict[str, str]:
    """Return the lineage hashes of the targets; touches no data."""
    return context.lineages(context.make_context(request, data=False), request.run, request.targets)


def run_job(request: Request, started: float) -> dict[str, Any]:
    """Make the targets; return the result as a JSON-able dictionary (without "ok" and "error")."""
    seconds = {"import": time.perf_counter() - started}
    clock = time.perf_counter()
    sources = storage.source_frontend(request)
    st = context.make_context(request)
    st.storage = []  # a context may bring stores of its own; a job must not read from them, nor write there
    hashes = context.lineages(st, request.run, request.targets)
    context.check_source_lineage(st, request)
    stored = {} if request.from_scratch else find_stored(request, hashes)
    todo = [t for t in request.targets if t not in stored]

    plan = compute.passes(st, request, todo, {*request.source_types, *stored})
    plugins = {t: st.get_single_plugin(request.run, t) for t in request.targets}
    backend = storage.CountingBackend(storage.dead_time_channels(plugins))
    request.output_folder.mkdir(parents=True, exist_ok=True)
    st.storage = [
        *sources,
        *storage.stored_frontends(stored),
        storage.output_frontend(request.output_folder, todo, backend),
    ]
    seconds["context"] = time.perf_counter() - clock

    clock = time.perf_counter()
    done = [compute.run_pass(st, request, group) for group in plan]
    for data_type in stored.keys() & backend.channels.keys():
        backend.count_again(stored[data_type], data_type)
    folders = {t: request.output_folder / request.folder_name(t, hashes[t]) for t in todo} | stored
    for group in done:
        if group.pop("forked"):
            for data_type in backend.dead_time.keys() & set(group["targets"]):
                backend.count_again(folders[data_type], data_type)
    seconds["make"] = time.perf_counter() - clock

    targets = {}
    for data_type in request.targets:
        facts = asdict(check_strax_folder(folders[data_type]))
        targets[data_type] = {
            **facts,
            # in strax' own order, which the metadata on disk has not: the field's run databases compare
            # lineages as MongoDB does, key by key in order
            "lineage": st.key_for(request.run, data_type).lineage,
            "already_stored": str(stored[data_type]) if data_type in stored else None,
            "dead_time": asdict(backend.dead_time[data_type]) if data_type in backend.dead_time else None,
        }
    packages = {"straxflow", "strax", "numpy", "numba", request.context.split(".")[0].split(":")[0]}
    packages |= {p.__module__.split(".")[0] for p in st._plugin_class_registry.values()}
    return {
        "targets": targets,
        "passes": done,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "versions": {v.name: v.as_dict() for v in versions(sorted(packages))},
        "context": request.context,
    }


def preload() -> None:
    """What any job needs to know, for a process that is to be forked."""
    versions()


def usage() -> dict[str, Any]:
    """Return what this process and its children used, and where."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "cpu_seconds": round(sum(u.ru_utime + u.ru_stime for u in (own, children)), 3),
        "peak_rss_mb": round(max(own.ru_maxrss, children.ru_maxrss) / 1024, 1),
        "host": socket.getfqdn(),
    }
