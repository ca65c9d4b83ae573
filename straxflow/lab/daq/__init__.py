"""A simulated redax DAQ: live data as redax writes them, and run documents as it keeps them."""

from straxflow.lab.daq.daq import Daq, run_document
from straxflow.lab.daq.plan import MODES, RunPlan
from straxflow.lab.daq.writer import RunSummary, write_run

__all__ = ["MODES", "Daq", "RunPlan", "RunSummary", "run_document", "write_run"]
