"""The demo detector: a small two-phase xenon TPC with one bottom and four top photomultipliers.

Everything between the DAQ's files and events is here, in NumPy: numba functions that strax never caches
cost seconds in every process, more than all the work on a small run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import strax

from straxflow.detectors import live_folder, reader_options
from straxflow.detectors.demo.events import Events
from straxflow.detectors.demo.peaks import Peaks
from straxflow.detectors.demo.pulses import Hits, LedCalibration, Records
from straxflow.detectors.demo.reader import DAQReader

PLUGINS = (DAQReader, Records, Hits, Peaks, Events, LedCalibration)


def context(
    run: Mapping[str, Any],
    source: str | None,
    output: str | None,
    *,
    compressors: Mapping[str, str] | None = None,
    **options: Any,
) -> strax.Context:
    """Return the demo detector's context.

    `compressors` names the compressor of a data type ({"raw_records": "zstd"}), which never changes a
    lineage; any other keyword is an option of the plugins.
    """
    chosen = dict(compressors or {})
    # strax turns the `provides` of what it once registered into a tuple
    plugins = [_with_compressor(p, chosen.pop(strax.to_str_tuple(p.provides)[0], None)) for p in PLUGINS]
    if chosen:
        raise ValueError(f"compressors for unknown data types: {', '.join(sorted(chosen))}")
    st = strax.Context(storage=[], register=plugins, config=options)
    folder = live_folder(run, source)
    if folder:
        st.set_config(reader_options(run, folder))
    return st


def _with_compressor(plugin: Any, compressor: str | None) -> Any:
    # a subclass of the same name: the compressor is a class attribute, the name is part of the lineage
    if compressor is None:
        return plugin
    return type(plugin.__name__, (plugin,), {"compressor": compressor, "__module__": plugin.__module__})
