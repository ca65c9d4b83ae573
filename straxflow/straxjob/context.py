"""From `module:function` to a strax context, with every mistake of a configuration told in one line."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable
from typing import Any

import strax

from straxflow.errors import ConfigError
from straxflow.straxjob.request import Request, did_you_mean


def load(name: str, what: str) -> Any:
    """Import `module:attribute`; ConfigError if that fails."""
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise ConfigError(f"{what} {name!r} is not of the form module:name")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # an import can fail in any way, and all of them are the configuration's
        raise ConfigError(
            f"cannot import the {what} {module_name!r} in {sys.executable}: {type(error).__name__}: {error}"
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        known = [n for n in vars(module) if not n.startswith("_")]
        raise ConfigError(f"{module_name} has no {what} {attribute!r}{did_you_mean(attribute, known)}") from error


def make_context(request: Request, *, data: bool = True) -> Any:
    """Call the context function and apply the request's plugins and config.

    The function is called with `run` (the run's facts, the run id under "run"), `source` and `output`
    (folders as str; None where only lineages are asked for) and the configured keywords.
    """
    function = load(request.context, "context")
    arguments: dict[str, Any] = {
        "run": {**request.facts, "run": request.run},
        "source": str(request.source_folder) if data else None,
        "output": str(request.output_folder) if data else None,
    }
    _check_signature(function, request, arguments)
    try:
        st = function(**arguments, **request.context_kwargs)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(f"{request.context} failed: {type(error).__name__}: {error}") from error
    if not isinstance(st, strax.Context):
        raise ConfigError(f"{request.context} returned a {type(st).__name__}, expected a strax.Context")
    for name in request.register:
        st.register(load(name, "plugin"))
    _configure(st, request.config)
    return st


def _check_signature(function: Callable[..., Any], request: Request, arguments: dict[str, Any]) -> None:
    double = sorted(arguments.keys() & request.context_kwargs.keys())
    if double:
        raise ConfigError(f"context_kwargs may not set {', '.join(double)}: straxflow gives these to the context")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{request.context} is no function that makes a context") from error
    try:
        signature.bind(**arguments, **request.context_kwargs)
    except TypeError as error:
        known = signature.parameters.keys() - arguments.keys()
        raise ConfigError(
            f"{request.context} cannot be called with the configured keywords: {error} "
            f"(it takes: {', '.join(sorted(known)) or 'none'})"
        ) from error


def _configure(st: Any, config: dict[str, Any]) -> None:
    """Set plugin options, and strax' own context options (allow_multiprocess, timeout, ...)."""
    plugin_options = {o for p in st._plugin_class_registry.values() for o in p.takes_config}
    plugin_options |= set(st.context_config["free_options"])
    context_options = set(strax.Context.takes_config)
    for name in config:
        if name not in plugin_options | context_options:
            raise ConfigError(f"no plugin takes the option {name!r}{did_you_mean(name, plugin_options)}")
    values = {name: _as_tuple(value) for name, value in config.items()}
    st.set_config({n: v for n, v in values.items() if n in plugin_options})
    st.set_context_config({n: v for n, v in values.items() if n not in plugin_options})


def _as_tuple(value: Any) -> Any:
    # JSON has no tuples, strax options have no lists: a list would give another lineage hash
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def lineages(st: Any, run: str, data_types: Iterable[str]) -> dict[str, str]:
    """Return the lineage hash of each data type; ConfigError for one that the context does not know."""
    known = st._plugin_class_registry
    hashes = {}
    for data_type in data_types:
        if data_type not in known:
            raise ConfigError(f"the context makes no data type {data_type!r}{did_you_mean(data_type, known)}")
        hashes[data_type] = st.key_for(run, data_type).lineage_hash
    return hashes


def check_source_lineage(st: Any, request: Request) -> None:
    """Check that the source's data is what this context would make; strax would silently not find it."""
    for data_type, found in lineages(st, request.run, request.source_types).items():
        expected = request.source_types[data_type]
        if found != expected:
            raise ConfigError(
                f"run {request.run}: the stored {data_type} has lineage {expected}, but the context "
                f"{request.context} makes {found}: it was made with other options or plugin versions; "
                f"make {data_type} again with this configuration, or use the configuration that made it"
            )


def needed_types(st: Any, run: str, target: str, available: Iterable[str], live: bool) -> set[str]:
    """Return all data types that are computed on the way to a target, given what can be loaded.

    Raises ConfigError if that leads to a DAQ reader although there is no live data.
    """
    loadable, seen, todo = set(available), set[str](), [target]
    while todo:
        data_type = todo.pop()
        if data_type in seen or (data_type in loadable and data_type != target):
            continue
        plugin = st.get_single_plugin(run, data_type)
        if not plugin.depends_on and not live:
            raise ConfigError(
                f"{target} needs {data_type}, which the source does not hold (it holds {', '.join(sorted(loadable))})"
            )
        seen |= {data_type, *strax.to_str_tuple(plugin.provides)}
        todo += strax.to_str_tuple(plugin.depends_on)
    return seen
