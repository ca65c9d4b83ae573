"""The configuration: model, loading, documentation."""

from straxflow.config.load import load, load_files, profile_files
from straxflow.config.model import LIVE, STEPS, Config, Product, Resources, Store

__all__ = ["LIVE", "STEPS", "Config", "Product", "Resources", "Store", "load", "load_files", "profile_files"]
