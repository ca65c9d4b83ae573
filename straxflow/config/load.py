"""From YAML files to a checked Config; all errors at once, each with the path of its key."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from straxflow.config.model import Config
from straxflow.config.sections.places import Folders, Store
from straxflow.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_FILE = Path("config/config.yaml")
_USER = re.compile(r"//.*@")
_SHOWN = 200
"""Characters of a wrong value that are repeated."""


class _StrictLoader(yaml.SafeLoader):
    """YAML in which a key that stands twice in a mapping is an error, not the last one's silent victory."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise ConfigError(f"line {key_node.start_mark.line + 1}: the key {key!r} stands twice")
            seen.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def load_files(files: Sequence[Path], root: Path = ROOT) -> Config:
    """Read YAML files, later over earlier (as snakemake's --configfile does), and check the result.

    Raises:
        ConfigError: naming file and line of bad YAML, or all keys that are wrong.
    """
    return load(read_files(files, root), root, ", ".join(map(str, files)))


def read_files(files: Sequence[Path], root: Path = ROOT) -> dict[str, Any]:
    """Read YAML files, later over earlier, unchecked.

    Raises:
        ConfigError: naming file and line of bad YAML.
    """
    merged: dict[str, Any] = {}
    for file in files:
        path = root / file
        try:
            loaded = yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)
        except FileNotFoundError:
            raise ConfigError(f"config file {path} does not exist") from None
        except (yaml.YAMLError, ConfigError, OSError, ValueError, TypeError) as error:
            # dates that are none, and keys that are no words, among others
            raise ConfigError(f"config file {path}: {error}") from None
        except RecursionError:
            raise ConfigError(f"config file {path}: is nested too deeply") from None
        if loaded is None:
            continue
        if not isinstance(loaded, dict):
            raise ConfigError(f"config file {path}: expected keys and values, found {type(loaded).__name__}")
        merge(merged, loaded)
    return merged


def load(settings: Mapping[str, Any], root: Path = ROOT, origin: str = "the configuration") -> Config:
    """Check settings and make their relative paths absolute, from `root` (the Snakefile's folder).

    Raises:
        ConfigError: listing every error, each with the path of its key.
    """
    try:
        config = Config.model_validate(dict(settings))
    except ValidationError as error:
        lines = [line for item in error.errors() for line in _explain(item)]
        raise ConfigError(
            f"{origin}: {len(lines)} error{'s' * (len(lines) > 1)}:\n" + "\n".join(f"  {x}" for x in lines)
        ) from None
    folders: dict[str, Path] = {
        name: root / path.expanduser()
        for name in Folders.model_fields
        if (path := getattr(config.folders, name)) is not None
    }
    update: dict[str, Any] = {"folders": Folders.model_validate(folders)}
    if config.store.ssh is None:
        update["store"] = _absolute(config.store, root)
    if config.daq.ssh is None:
        update["daq"] = config.daq.model_copy(update={"folder": root / config.daq.folder.expanduser()})
    if config.rundb.password_file:
        secret = root / config.rundb.password_file.expanduser()
        update["rundb"] = config.rundb.model_copy(update={"password_file": secret})
    program, *words = config.strax.python
    if "/" in program:
        python = [str(root / Path(program).expanduser()), *words]
        update["strax"] = config.strax.model_copy(update={"python": python})
    if config.runs.numbers:
        update["runs"] = config.runs.model_copy(update={"numbers": [_run_word(w, root) for w in config.runs.numbers]})
    config = config.model_copy(update=update)
    own = (config.folders.state, config.folders.live, config.folders.staging, config.store.folder)
    if config.daq.ssh is None and config.daq.folder.resolve() in {folder.resolve() for folder in own}:
        raise ConfigError(
            f"{origin}: 1 error:\n  daq.folder: {config.daq.folder} is one of this site's own folders; it must be the "
            "DAQ's disk"
        )
    return config


def profile_files(profile: str, root: Path = ROOT) -> list[Path]:
    """The config files that a Snakemake profile of this repository names.

    Raises:
        ConfigError: if there is no such profile, or it names none.
    """
    path = root / profile / "config.yaml"
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        known = sorted(p.parent.name for p in (root / "profiles").glob("*/config.yaml"))
        raise ConfigError(
            f"there is no profile {profile!r}{_did_you_mean(profile, known)} (known: {', '.join(known)})"
        ) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"profile {path}: {error}") from None
    files = settings.get("configfile") or settings.get("configfiles")
    if not files:
        raise ConfigError(f"profile {path}: names no `configfile`")
    return [Path(f) for f in ([files] if isinstance(files, str) else files)]


def _absolute(store: Store, root: Path) -> Store:
    return store.model_copy(update={"folder": root / store.folder.expanduser()})


def _run_word(word: int | str, root: Path) -> int | str:
    return f"@{root / Path(word[1:]).expanduser()}" if isinstance(word, str) and word.startswith("@") else word


def merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    """Lay settings over others, section by section, as snakemake does with its config files."""
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


def _explain(error: Any) -> list[str]:
    path = ".".join(str(part) for part in error["loc"])
    kind, message = error["type"], error["msg"]
    if kind == "extra_forbidden":
        known = list(_keys_at(error["loc"][:-1]))
        return [f"{path}: unknown key{_did_you_mean(str(error['loc'][-1]), known)}"]
    if kind == "missing":
        return [f"{path}: missing, and it has no default"]
    # the user part of an address may hold a password
    found = "" if isinstance(error["input"], (dict, list)) else f" (found {_brief(error['input'])})"
    message = message.removeprefix("Value error, ")
    if not path:
        return str(message).splitlines()
    return [f"{path}: {message[0].lower()}{message[1:]}{found}"]


def _brief(value: Any) -> str:
    said = _USER.sub("//***@", repr(value))
    return said if len(said) <= _SHOWN else f"{said[:_SHOWN]}..."


def _keys_at(loc: Sequence[Any]) -> list[str]:
    """The keys that the section at a path knows."""
    annotation: Any = Config
    for part in loc:
        if typing.get_origin(annotation) is dict:
            annotation = typing.get_args(annotation)[1]
        elif model := _model_in(annotation):
            annotation = _fields(model).get(str(part))
    model = _model_in(annotation)
    return list(_fields(model)) if model else []


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next((m for a in typing.get_args(annotation) if (m := _model_in(a))), None)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f", did you mean {close[0]!r}?" if close else ""
