"""The configuration: model, loading, documentation."""

from straxflow.config.load import DEFAULT_FILE, load, load_files, profile_files, read_files
from straxflow.config.model import Config
from straxflow.config.sections.base import LIVE, STEPS
from straxflow.config.sections.places import Store
from straxflow.config.sections.products import Product
from straxflow.config.sections.resources import Resources

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
