"""The configuration as last read whole: read again when its files change, kept as it was while they are wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from straxflow.config import Config, load
from straxflow.config.load import ROOT
from straxflow.config.profile import Source, profile_settings
from straxflow.errors import ConfigError

# without these an invocation beside others, or after a kill, would refuse to work
NEEDED = {"nolock": True, "ignore-incomplete": True, "keep-going": True}
"""Settings that every profile here has; a copy of one for an unattended invocation has them in any case."""


class Reading:
    """The configuration and the profile; `changes` (keys of `watch`) go over what the files say."""

    def __init__(self, source: Source, changes: Mapping[str, Any], say: Callable[[str], None]) -> None:
        self.source = source
        self.changes = dict(changes)
        self.say = say
        self._seen = self._signature()
        self.config, self._settings, self._profile = self._read()

    def again(self) -> None:
        """Read again if a file has changed; what is wrong is told once, and the last good one stays."""
        seen = self._signature()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            config, settings, profile = self._read()
            self._check_same_place(config)
        except ConfigError as error:
            self.say(f"the configuration changed and is not valid; the last good one stays in force: {error}")
            return
        if (config, profile) != (self.config, self._profile):
            self.say("the configuration changed: the new one is in force")
        self.config, self._settings, self._profile = config, settings, profile

    def write(self, folder: Path, most: int | None = None) -> Path:
        """Write profile and configuration for one invocation into a folder; it claims so many runs at most."""
        settings = dict(self._settings)
        if most is not None:
            settings["claim"] = {**(settings.get("claim") or {}), "max_runs": most}
        kept = {name: value for name, value in self._profile.items() if name not in ("config", "configfiles")}
        files = {
            "settings.yaml": settings,
            "config.yaml": {**kept, **NEEDED, "configfile": str(folder / "settings.yaml")},
        }
        for name, content in files.items():
            # the configuration may hold passwords of the experiment's own programs
            fd = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                yaml.safe_dump(content, file, sort_keys=False)
        return folder

    @property
    def slurm(self) -> bool:
        """Whether the profile sends jobs to Slurm."""
        return self._profile.get("executor") == "slurm"

    def _read(self) -> tuple[Config, dict[str, Any], Mapping[str, Any]]:
        settings = self.source.settings()
        config = load(settings, origin=self.source.origin)
        watch = config.watch.model_copy(update=self.changes)
        return config.model_copy(update={"watch": watch}), settings, profile_settings(self.source.profile)

    def _check_same_place(self, config: Config) -> None:
        for name, old, new in (
            ("site", self.config.site, config.site),
            ("folders.state", self.config.folders.state, config.folders.state),
        ):
            if old != new:
                raise ConfigError(f"{name} changed from {old} to {new}: that takes a restart of the watcher")

    def _signature(self) -> list[tuple[str, int, int, int] | None]:
        found: list[tuple[str, int, int, int] | None] = []
        try:
            files = [self.source.profile_file, *(ROOT / file for file in self.source.files)]
        except ConfigError:
            files = [self.source.profile_file]
        for file in files:
            try:
                info = file.stat()
                found.append((str(file), info.st_mtime_ns, info.st_size, info.st_ino))
            except OSError:
                found.append(None)
        return found
