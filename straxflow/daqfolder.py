"""Where the live data of a run are at the DAQ."""

from __future__ import annotations

from pathlib import Path

from straxflow.config import Config
from straxflow.receipts import RunFacts
from straxflow.transport.rsync import Place


def daq_folder(config: Config, experiment: str | None = None) -> Path:
    """The folder there that holds the runs (of an experiment, where there are several)."""
    return Path(str(config.daq.folder).replace("{experiment}", experiment or config.experiment))


def daq_top(config: Config) -> Path:
    """The folder there that holds everything: of several experiments the one above all."""
    parts = config.daq.folder.parts
    return Path(*parts[: next((i for i, part in enumerate(parts) if "{experiment}" in part), len(parts))])


def run_folder(config: Config, run: str, number: int, experiment: str | None) -> Path:
    """The folder of a run there."""
    name = config.daq.run_folder.format(run=run, number=number, experiment=experiment or config.experiment)
    return daq_folder(config, experiment) / name


def run_place(config: Config, facts: RunFacts) -> Place:
    """The same, with the host."""
    return Place(str(run_folder(config, facts.run, facts.number, facts.experiment)), config.daq.ssh)
