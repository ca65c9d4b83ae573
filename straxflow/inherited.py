"""What programs of a site inherit of this process: they see files only, and what they print is kept in logs."""

from __future__ import annotations

import os

from straxflow.config import Config


def environment(config: Config) -> dict[str, str]:
    """The environment but for the run database's password."""
    return {name: value for name, value in os.environ.items() if name != config.rundb.password_env}
