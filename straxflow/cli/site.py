"""The site that a command is about: the configuration and the state folder that snakemake would take."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from straxflow.batch import campaign_name
from straxflow.config import DEFAULT_FILE, Config, load, profile_files, read_files
from straxflow.config.load import ROOT, merge
from straxflow.errors import ConfigError
from straxflow.receipts import State

NO_PROFILE = "none"  # snakemake's own word for it


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


def open_site(arguments: argparse.Namespace) -> Site:
    """The site that the options name.

    Raises:
        ConfigError: if there is no such profile or file, or the configuration is not valid.
    """
    profile = getattr(arguments, "profile", None) or os.environ.get("SNAKEMAKE_PROFILE") or "local"
    given = getattr(arguments, "configfiles", None)
    settings: dict[str, Any] = {}
    if given:
        files = [Path.cwd() / file for file in given]
    elif profile == NO_PROFILE:
        files = [DEFAULT_FILE]
    else:
        files = profile_files(profile)
    settings = read_files(files)
    own = profile_settings(profile).get("config")
    if isinstance(own, Mapping):
        # snakemake lays `config:` of a profile over its config files
        merge(settings, own)
    origin = ", ".join(os.path.relpath(ROOT / file) for file in files)
    return Site(load(settings, origin=origin), campaign_name(), profile, origin)


def profile_settings(profile: str) -> Mapping[str, Any]:
    """What a profile's file says; empty if there is none."""
    path = ROOT / profile / "config.yaml"
    if profile == NO_PROFILE or not path.is_file():
        return {}
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError) as error:
        raise ConfigError(f"profile {path}: {error}") from None
    return settings if isinstance(settings, Mapping) else {}
