"""Check of the live data that redax writes, before anything reads it for real."""

from straxflow.errors import NotComplete
from straxflow.livedata.check import LiveReport, check_live_data, is_complete
from straxflow.livedata.expectation import LiveExpectation
from straxflow.livedata.problems import LiveDataDamaged, Problem
from straxflow.livedata.scans import Scans

__all__ = [
    "LiveDataDamaged",
    "LiveExpectation",
    "LiveReport",
    "NotComplete",
    "Problem",
    "Scans",
    "check_live_data",
    "is_complete",
]
