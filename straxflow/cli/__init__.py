"""The `straxflow` command: init, check, status, versions, config."""

from straxflow.cli.main import main

__all__ = ["main"]
