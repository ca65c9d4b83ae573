"""The real amstrax (XAMS at Nikhef) as a straxflow context.

Needs a Python with `strax==2.0.2 amstrax==2.2.0 "numpy<2" pytz`: amstrax' reader overflows with NumPy 2.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import Any

from straxflow.detectors import live_folder, reader_options, run_start

# GitPython, which amstrax imports, refuses to load without a git binary otherwise
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

import amstrax
import strax


def context(
    run: Mapping[str, Any],
    source: str | None,
    output: str | None,
    *,
    name: str = "xams",
    detector: str = "xams",
    **options: Any,
) -> strax.Context:
    """Return amstrax' context `name`, never connected to a database, ready to read the run's live data.

    Other keywords are options of its plugins.
    """
    # amstrax wants a folder to write; straxflow replaces all storage, and lineages need none
    make = getattr(amstrax.contexts, name)
    st = make(output_folder=output or tempfile.gettempdir(), init_rundb=False)
    st.set_config(options)
    folder = live_folder(run, source)
    if folder:
        document = {"daq_config": dict(run["daq_config"]), "start": run_start(run)}
        st.set_config({"live_data_dir": str(folder.parent)})
        amstrax.contexts.context_for_daq_reader(
            st, run_id=folder.name, run_doc=document, detector=detector, check_exists=False
        )
        # it sets `compressor`, which no plugin takes, where `daq_compressor` is meant
        del st.config["compressor"]
        st.set_config({"daq_compressor": reader_options(run, folder)["daq_compressor"]})
    return st
