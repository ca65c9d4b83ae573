"""The site that a command is about: the configuration and the state folder that snakemake would take."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from straxflow.batch import campaign_name
from straxflow.config import Config
from straxflow.config.profile import Source, profile_settings
from straxflow.permissions import apply_umask
from straxflow.receipts import State


@dataclass(frozen=True)
class Site:
    """Configuration, campaign and state folder, and where they come from."""

    config: Config
    campaign: str
    profile: str
    origin: str

    @property
    def state(self) -> State:
        """The state folder of the campaign."""
        return State(self.config.folders.state / self.campaign)

    @cached_property
    def profile_settings(self) -> Mapping[str, Any]:
        """The profile's own settings: executor, default resources."""
        return profile_settings(self.profile)


def source_of(arguments: argparse.Namespace) -> Source:
    """Where the options say that the configuration comes from."""
    profile = getattr(arguments, "profile", None) or os.environ.get("SNAKEMAKE_PROFILE") or "local"
    given = getattr(arguments, "configfiles", None) or ()
    return Source(profile, tuple(Path.cwd() / file for file in given), campaign_name())


def open_site(arguments: argparse.Namespace) -> Site:
    """The site that the options name.

    Raises:
        ConfigError: if there is no such profile or file, or the configuration is not valid.
    """
    source = source_of(arguments)
    config = source.load()
    apply_umask(config)
    return Site(config, campaign_name(), source.profile, source.origin)
