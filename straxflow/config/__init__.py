"""The configuration: model, loading, documentation."""

from straxflow.config.load import DEFAULT_FILE, load, load_files, profile_files, read_files
from straxflow.config.model import LIVE, STEPS, Config, Product, Resources, Store

__all__ = [
    "DEFAULT_FILE",
    "LIVE",
    "STEPS",
    "Config",
    "Product",
    "Resources",
    "Store",
    "load",
    "load_files",
    "profile_files",
    "read_files",
]
