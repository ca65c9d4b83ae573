"""straxen (XENONnT) as a straxflow context: the pattern for any experiment whose reader descends from straxen's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import strax
import straxen

from straxflow.detectors import live_folder, reader_options


def context(
    run: Mapping[str, Any],
    source: str | None,
    output: str | None,
    *,
    name: str = "xenonnt",
    **keywords: Any,
) -> strax.Context:
    """Return straxen's context `name` ("xenonnt", "xenonnt_online", "xenonnt_led"), ready to read live data.

    It connects to no run database (`_database_init`) and to none of the storage at XENON's sites; the other
    keywords go to straxen, among them any context option, or `xedocs_version` (which does need a network).
    """
    offline: dict[str, Any] = {
        "output_folder": output or "",
        "_database_init": False,
        "_auto_append_rucio_local": False,
        "_raw_paths": [],
        "_processed_paths": [],
    }
    st = getattr(straxen.contexts, name)(**{**offline, **keywords})
    folder = live_folder(run, source)
    if folder:
        # straxen forbids raw data to be made anywhere but at the DAQ
        st.set_context_config({"forbid_creation_of": ()})
        st.set_config(reader_options(run, folder))
    return st
