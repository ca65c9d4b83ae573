"""Check of the live data that redax writes, before anything reads it for real."""

from straxflow.errors import NotComplete
from straxflow.livedata.check import LiveExpectation, LiveReport, check_live_data, is_complete
from straxflow.livedata.problems import LiveDataDamaged, Problem

__all__ = [
    "LiveDataDamaged",
    "LiveExpectation",
    "LiveReport",
    "NotComplete",
    "Problem",
    "check_live_data",
    "is_complete",
]
