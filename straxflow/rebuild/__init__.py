"""Receipts made anew from the stores and the run database, each verified; also for data that another tool made.

What cannot be verified is not claimed: then a receipt stays missing, and the report says why.
"""

from straxflow.rebuild.report import Part, Rebuilt
from straxflow.rebuild.run import Rebuilder

__all__ = ["Part", "Rebuilder", "Rebuilt"]
