"""straxflow: from a redax DAQ to checked strax data, one run at a time."""

__version__ = "0.1.0"
