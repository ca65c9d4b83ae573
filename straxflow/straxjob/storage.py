"""The storage a strax job reads and writes: nothing but its source, and an own folder for the targets."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import strax

from straxflow.errors import ConfigError
from straxflow.straxjob.request import Request


@dataclass
class DeadTime:
    """Artificial dead time that a DAQ reader inserted in place of records it had to drop."""

    records: int = 0
    ns: int = 0

    def add(self, data: np.ndarray[Any, Any], channel: int) -> None:
        """Count the entries in the dead-time channel."""
        marked = data[data["channel"] == channel]
        self.records += len(marked)
        self.ns += int((marked["length"].astype(np.int64) * marked["dt"]).sum())


class CountingSaver(strax.FileSaver):  # type: ignore[misc]
    """Writes like strax' own, and counts dead time on the way: reading the data back would cost seconds."""

    dead_time: DeadTime | None = None
    channel: int = -1

    def save(self, chunk: Any, chunk_i: int, executor: Any = None) -> Any:
        """Save a chunk."""
        if self.dead_time is not None and len(chunk):
            self.dead_time.add(chunk.data, self.channel)
        return super().save(chunk, chunk_i, executor)


class CountingBackend(strax.FileSytemBackend):  # type: ignore[misc]
    """strax' file backend with counting savers for the types that can hold dead time."""

    def __init__(self, channels: dict[str, int]) -> None:
        super().__init__()
        self.channels = channels
        self.dead_time: dict[str, DeadTime] = {}

    def _saver(self, dirname: str, metadata: dict[str, Any], **kwargs: Any) -> CountingSaver:
        saver = CountingSaver(dirname, metadata=metadata, **kwargs)
        data_type = metadata["data_type"]
        if data_type in self.channels:
            saver.channel = self.channels[data_type]
            saver.dead_time = self.dead_time[data_type] = DeadTime()
        return saver

    def count_again(self, folder: Path, data_type: str) -> None:
        """Count from the saved data: what savers in other processes counted is lost with them."""
        self.dead_time[data_type] = dead_time = DeadTime()
        for chunk in self.loader(str(folder)):
            dead_time.add(chunk.data, self.channels[data_type])


def dead_time_channels(plugins: dict[str, Any]) -> dict[str, int]:
    """Return the dead-time channel of each data type made by a DAQ reader.

    As in straxen and amstrax, a reader (a plugin without dependencies) says it by
    ARTIFICIAL_DEADTIME_CHANNEL in its module.
    """
    found = {}
    for data_type, plugin in plugins.items():
        channel = getattr(sys.modules[plugin.__module__], "ARTIFICIAL_DEADTIME_CHANNEL", None)
        names = plugin.dtype_for(data_type).names
        if channel is not None and not plugin.depends_on and {"channel", "length", "dt"} <= set(names):
            found[data_type] = int(channel)
    return found


def source_frontend(request: Request) -> list[Any]:
    """Return the frontend for stored source data; ConfigError if one of the folders is not there."""
    if request.source == "live":
        if not (request.source_folder / request.run).is_dir():
            raise ConfigError(f"no live data of run {request.run}: {request.source_folder / request.run} is missing")
        return []
    for data_type, lineage_hash in request.source_types.items():
        folder = request.source_folder / request.folder_name(data_type, lineage_hash)
        if not folder.is_dir():
            others = sorted(p.name for p in request.source_folder.glob(f"{request.run}-{data_type}-*"))
            raise ConfigError(
                f"the source of run {request.run} is missing: {folder}"
                + (f" (of other lineage: {', '.join(others)})" if others else "")
            )
    return [strax.DataDirectory(str(request.source_folder), readonly=True, take_only=tuple(request.source_types))]


def stored_frontends(stored: dict[str, Path]) -> list[Any]:
    """Return frontends that read already stored targets ({data type: its folder}), and only those."""
    return [
        strax.DataDirectory(str(folder.parent), readonly=True, take_only=(data_type,))
        for data_type, folder in stored.items()
    ]


def output_frontend(folder: Path, targets: Iterable[str], backend: CountingBackend) -> Any:
    """Return the frontend that saves the targets, and only those, in a folder of their own."""
    frontend = strax.DataDirectory(str(folder), take_only=tuple(targets))
    frontend.backends = [backend]
    return frontend
