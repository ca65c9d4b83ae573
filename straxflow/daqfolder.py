"""Where the live data of a run are at the DAQ."""

from __future__ import annotations

from pathlib import Path

from straxflow.config import Config
from straxflow.receipts import RunFacts
from straxflow.transport.rsync import Place


def daq_folder(config: Config, experiment: str | None = None) -> Path:
    """The folder there that holds the runs (of an experiment, where there are several)."""
    return Path(str(config.daq.folder).replace("{experiment}", experiment or config.experiment))


def run_place(config: Config, facts: RunFacts) -> Place:
    """The folder of a run."""
    name = config.daq.run_folder.format(run=facts.run, number=facts.number, experiment=facts.experiment)
    return Place(str(daq_folder(config, facts.experiment) / name), config.daq.ssh)
