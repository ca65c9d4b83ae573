"""A site by its snakemake profile: which files configure it, and what the profile itself says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from straxflow.campaigns import lay_over
from straxflow.config.load import DEFAULT_FILE, ROOT, load, merge, profile_files, read_files
from straxflow.config.model import Config
from straxflow.errors import ConfigError

NO_PROFILE = "none"  # snakemake's own word for it


@dataclass(frozen=True)
class Source:
    """Where the configuration of a site comes from: a profile, and files given instead of those that it names."""

    profile: str
    given: tuple[Path, ...] = ()
    campaign: str | None = None
    """What this campaign makes is laid over what the files say."""

    @property
    def files(self) -> list[Path]:
        """The configuration files, later over earlier; relative ones count from the folder of the Snakefile.

        Raises:
            ConfigError: if there is no such profile, or it names none.
        """
        if self.given:
            return list(self.given)
        return [DEFAULT_FILE] if self.profile == NO_PROFILE else profile_files(self.profile)

    @property
    def profile_file(self) -> Path:
        """The file of the profile."""
        return ROOT / self.profile / "config.yaml"

    @property
    def origin(self) -> str:
        """The configuration files in words."""
        return ", ".join(os.path.relpath(ROOT / file) for file in self.files)

    def settings(self) -> dict[str, Any]:
        """What the files and the profile say together, unchecked.

        Raises:
            ConfigError: naming a file that is missing or no YAML.
        """
        settings = read_files(self.files)
        own = profile_settings(self.profile).get("config")
        if isinstance(own, Mapping):
            # snakemake lays `config:` of a profile over its config files
            merge(settings, own)
        if self.campaign:
            lay_over(settings, self.campaign)
        return settings

    def load(self) -> Config:
        """The checked configuration.

        Raises:
            ConfigError: listing every error.
        """
        return load(self.settings(), origin=self.origin)


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
