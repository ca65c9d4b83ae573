"""What one strax job is asked to do: the JSON file that the process step hands to the job."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from straxflow.errors import ConfigError


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)", or what there is to choose from when nothing is close."""
    choice = sorted(known)
    close = difflib.get_close_matches(word, choice, n=3)
    if close:
        return " (did you mean {}?)".format(" or ".join(map(repr, close)))
    return f" (known: {', '.join(choice)})"


@dataclass(frozen=True)
class Request:
    """One job: make `targets` of one run with one context.

    `run` is the run id ("000932"), `facts` the run's acquisition facts (see receipts: number, start, end,
    mode, daq_config, ...). `source` is "live" (`source_folder` holds `<run>/`) or "data" (it holds
    `<run>-<type>-<lineage hash>/` for each of `source_types`, {data type: lineage hash}).
    `existing_folders` are stores that may already hold a target, but `unfit_folders` in them are not
    taken; `register` names extra plugins ("module:class").
    """

    run: str
    context: str
    targets: tuple[str, ...]
    source: Literal["live", "data"]
    source_folder: Path
    output_folder: Path
    facts: dict[str, Any] = field(default_factory=dict)
    context_kwargs: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    source_types: dict[str, str] = field(default_factory=dict)
    existing_folders: tuple[Path, ...] = ()
    unfit_folders: tuple[Path, ...] = ()
    register: tuple[str, ...] = ()
    from_scratch: bool = False
    workers: int = 1

    @classmethod
    def read(cls, path: Path) -> Request:
        """Read a job file; ConfigError if it is not one."""
        try:
            raw = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot read the job file {path}: {error}") from error
        if not isinstance(raw, dict):
            raise ConfigError(f"the job file {path} is not a JSON object")
        known = {f.name: f for f in fields(cls)}
        problems = [f"unknown key {key!r}{did_you_mean(key, known)}" for key in raw if key not in known]
        problems += [
            f"missing key {name!r}"
            for name, f in known.items()
            if name not in raw and f.default is MISSING and f.default_factory is MISSING
        ]
        if raw.get("source", "live") not in ("live", "data"):
            problems.append(f"source is {raw['source']!r}, expected 'live' or 'data'")
        if raw.get("source") == "data" and not raw.get("source_types"):
            problems.append("source is 'data' but source_types is empty")
        if raw.get("targets") == [] or isinstance(raw.get("targets"), str):
            problems.append("targets must be a list with at least one data type")
        if problems:
            raise ConfigError(f"the job file {path} is not valid: " + "; ".join(problems))
        return cls(
            **{
                **raw,
                "targets": tuple(dict.fromkeys(raw["targets"])),
                "source_folder": Path(raw["source_folder"]),
                "output_folder": Path(raw["output_folder"]),
                "existing_folders": tuple(Path(p) for p in raw.get("existing_folders", ())),
                "unfit_folders": tuple(Path(p) for p in raw.get("unfit_folders", ())),
                "register": tuple(raw.get("register", ())),
            }
        )

    def folder_name(self, data_type: str, lineage_hash: str) -> str:
        """Name of the folder in which strax keeps a data type of this run."""
        return f"{self.run}-{data_type}-{lineage_hash}"
