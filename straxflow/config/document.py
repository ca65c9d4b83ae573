"""What the model says of itself: JSON schema and Markdown reference; and the configuration in effect, as YAML."""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from straxflow.config.model import Config

_SECRET = re.compile(r"pass|secret|token|credential|key", re.IGNORECASE)

_HEAD = """\
# Configuration

Written by `straxflow config --doc` from the model in `straxflow/config/`; do not edit it by hand.
Unknown keys are errors. Later files (`configfile` of the profile, `--configfile`) are laid over earlier ones.
Relative paths count from the folder of the Snakefile. `straxflow check` reads the configuration and tries all parts
of it; `straxflow config --schema` gives the JSON schema, with which an editor completes and checks the YAML files.
"""


def schema() -> dict[str, Any]:
    """The JSON schema of the configuration files."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return dialect | Config.model_json_schema(by_alias=True)


def markdown() -> str:
    """The reference: a table for each section, with key, type, default and description."""
    parts = [_HEAD]
    for path, model in _sections("", Config):
        title = f"`{path}`" if path else "Top level"
        parts.append(f"## {title}\n\n{_sentence(model)}\n\n" + "\n".join(_table(path, model)) + "\n")
    return "\n".join(parts)


def effective(config: Config) -> str:
    """The configuration in effect, defaults filled in, as YAML; what may be a secret is starred."""
    settings = config.model_dump(mode="json", by_alias=True)
    environment = settings["strax"]["environment"]
    settings["strax"]["environment"] = {k: "***" if _SECRET.search(k) else v for k, v in environment.items()}
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=110)


def _sections(path: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    yield path, model
    shown: set[type[BaseModel]] = set()
    for key, field in _fields(model):
        inner, named = _model_in(field.annotation)
        if inner is None or inner in shown or (path.startswith("products") and key == "resources"):
            continue
        alike = sum(_model_in(f.annotation)[0] is inner for _, f in _fields(model)) > 1
        if alike:
            shown.add(inner)
        name = "<step>" if alike else f"{key}.<name>" if named else key
        yield from _sections(f"{path}.{name}" if path else name, inner)


def _table(path: str, model: type[BaseModel]) -> Iterator[str]:
    yield "| key | type | default | description |"
    yield "|---|---|---|---|"
    for key, field in _fields(model):
        inner, _ = _model_in(field.annotation)
        text = field.description or (_sentence(inner) if inner else "")
        row = (f"`{key}`", _type(field.annotation), _default(field), text.replace("<", "\\<"))
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"


def _fields(model: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    return [(field.alias or name, field) for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The section that a field holds, and whether it holds several, by name."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return next((found for a in arguments if (found := _model_in(a))[0]), (None, False))
    if origin is dict:
        return _model_in(arguments[1])[0], True
    return None, False


def _sentence(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


def _type(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join("nothing" if a is type(None) else _type(a) for a in arguments)
    if origin is typing.Literal:
        return " or ".join(f"`{a}`" for a in arguments)
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return "section by name" if _model_in(annotation)[0] else f"key: {_type(arguments[1])}"
    if _model_in(annotation)[0]:
        return "section"
    words = {str: "text", int: "integer", float: "number", bool: "true or false", Path: "path", object: "any"}
    return words[annotation]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        changed = value.model_dump(mode="json", exclude_unset=True)
        return ", ".join(f"`{k}: {v}`" for k, v in changed.items()) or "all defaults"
    if value is None:
        return ""
    return f"`{json.dumps(value, default=str)}`"
