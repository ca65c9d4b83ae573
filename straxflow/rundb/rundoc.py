"""Run documents as the field's tools write them, read with care: one malformed document harms only itself."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from straxflow.config import Config
from straxflow.errors import RunDbError, UsageError
from straxflow.receipts import Partial, RunFacts
from straxflow.rundb.client import Document
from straxflow.rundb.template import read_backwards

ONLINE = "online"
HIGHEST = 2**63 - 1
"""The largest number that a run document can hold."""
LONGEST = 200
"""Characters of a wrong value that a message repeats."""
PARTIAL = "partial"
"""Under `straxflow`, beside the campaigns: a fact of the run, the same for all of them."""
IDENTITY = ("number", "name", "experiment", "mode")
"""Fields that tell which run a document is of; every projection holds them."""
DAQ_FIELDS = (
    "strax_output_path",
    "processing_threads",
    "strax_chunk_length",
    "strax_chunk_overlap",
    "strax_fragment_payload_bytes",
    "compressor",
)


class Malformed(RunDbError):
    """A run document cannot be used; the others can."""


@dataclass(frozen=True)
class Run:
    """What straxflow needs of a run document."""

    id: str
    object_id: object
    facts: RunFacts
    status: str | None
    tags: tuple[str, ...]
    document: Document

    def campaign(self, name: str) -> Mapping[str, Any]:
        """straxflow's own sub-document of a campaign."""
        return campaign_part(self.document, name)


def campaign_part(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """straxflow's own sub-document of a campaign; empty if there is none or it is malformed."""
    ours = document.get("straxflow")
    part = ours.get(name) if isinstance(ours, Mapping) else None
    return part if isinstance(part, Mapping) else {}


def shares_state(campaign: str, config: Config) -> bool:
    """Whether a campaign's states stand where all tools read them: the online one's, unless it is a shadow."""
    return campaign == ONLINE and not config.shadow.enabled


def tags_of(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of a run's tags."""
    tags = document.get("tags")
    found = tags if isinstance(tags, list) else []
    return tuple(str(tag["name"]) for tag in found if isinstance(tag, Mapping) and "name" in tag)


def not_by_a_shadow(config: Config, what: str) -> None:
    """Refuse an order that changes what the older tool reads.

    Raises:
        UsageError: in a shadow.
    """
    if config.shadow.enabled:
        raise UsageError(
            f"{what} belong to the older tool too, and site {config.site} is its shadow (shadow.enabled), which writes "
            "nothing that others read; use the older tool's own commands"
        )


def status_field(campaign: str, config: Config) -> str:
    """Where the state of a run stands: the shared field, or one of the campaign's own."""
    return "processing_status" if shares_state(campaign, config) else f"straxflow.{campaign}.processing_status"


def data_field(campaign: str, config: Config) -> str:
    """Where data entries stand: in the shared list, or, beside an older tool that must not see them, in our own."""
    return f"straxflow.{campaign}.data" if config.shadow.enabled else "data"


def status_holder(document: Mapping[str, Any], campaign: str, config: Config) -> Mapping[str, Any]:
    """The (sub-)document whose `processing_status` is the state of a run."""
    return document if shares_state(campaign, config) else campaign_part(document, campaign)


def status_of(document: Mapping[str, Any], campaign: str, config: Config) -> str | None:
    """The state of a run: a string in the oldest documents, a sub-document in newer ones."""
    holder = status_holder(document, campaign, config)
    value = holder.get("processing_status")
    if isinstance(value, Mapping):
        value = value.get("status")
    return value if isinstance(value, str) else None


def parse(document: Document, config: Config, campaign: str) -> Run:
    """Read a run document.

    Raises:
        Malformed: naming the field, what was found and what was expected.
    """
    number = document.get("number")
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise Malformed(f"run document {document.get('_id')}: number: expected an integer, found {_shown(number)}")
    label = f"run document of run {number}"
    partial = _partial(document, label)
    start, end = (_time({**document, **partial}, key, label) for key in ("start", "end"))
    if end < start:
        raise Malformed(f"{label}: end ({end:%F %T}) is before start ({start:%F %T})")
    mode = document.get("mode")
    # it becomes a word of command lines
    if not isinstance(mode, str) or not mode or mode.startswith("-") or not mode.isprintable():
        raise Malformed(f"{label}: mode: expected a name, found {_shown(mode)}")
    daq_config = document.get("daq_config") or {}
    if not isinstance(daq_config, Mapping):
        raise Malformed(f"{label}: daq_config: expected keys and values, found {type(daq_config).__name__}")
    ours = document.get("straxflow", {})
    if not isinstance(ours, Mapping) or not isinstance(ours.get(campaign, {}), Mapping):
        raise Malformed(f"{label}: straxflow: expected keys and values by campaign, found {_shown(ours)}")
    run_id = make_run_id(document, config, label)
    rate = document.get("rate")
    source = document.get("source")
    facts = RunFacts(
        run=run_id,
        number=number,
        start=start,
        end=end,
        mode=mode,
        detectors=_names(document.get("detectors")),
        source=source.get("type") if isinstance(source, Mapping) else None,
        daq_config=_plain({key: daq_config[key] for key in DAQ_FIELDS if key in daq_config}),
        rate=_plain(rate) if isinstance(rate, Mapping) else {},
        experiment=experiment_of(document, config, label) or None,
        partial=partial.get("partial"),
    )
    return Run(run_id, document["_id"], facts, status_of(document, campaign, config), tags_of(document), document)


def make_run_id(document: Mapping[str, Any], config: Config, label: str) -> str:
    """The run id by the configured template.

    Raises:
        Malformed: if the document's fields give no valid id.
    """
    fields = {
        "number": document.get("number"),
        "name": document.get("name"),
        "experiment": experiment_of(document, config, label),
        "mode": document.get("mode"),
    }
    if "{name" in config.run_id and not isinstance(fields["name"], str):
        raise Malformed(f"{label}: name: expected a text, as the run id has it, found {_shown(fields['name'])}")
    try:
        run_id = config.run_id.format(**fields)
    except (ValueError, TypeError) as error:
        raise Malformed(f"{label}: run_id template {config.run_id!r} does not fit: {error}") from None
    if not re.fullmatch(r"[A-Za-z0-9_]+", run_id):
        raise Malformed(f"{label}: gives the run id {_shown(run_id)}: expected letters, digits and _ only")
    return run_id


def experiment_of(document: Mapping[str, Any], config: Config, label: str) -> str:
    """The experiment that a run belongs to; with several ones its document tells.

    Raises:
        Malformed: if it does not.
    """
    if not config.experiments:
        return config.experiment
    name = document.get("experiment")
    if not isinstance(name, str) or not name:
        raise Malformed(f"{label}: experiment: expected a name, as there are several, found {_shown(name)}")
    return name


def name_of(document: Mapping[str, Any], config: Config) -> str | None:
    """What a run is called besides its number: its name, or with several experiments its id."""
    if config.experiments:
        try:
            return make_run_id(document, config, "")
        except Malformed:
            return None
    name = document.get("name")
    return name if isinstance(name, str) else None


def query_for(run_id: str, config: Config) -> Document:
    """The query that finds the run document of a run id (the template read backwards).

    Raises:
        Malformed: if the id does not fit the template.
    """
    found = read_backwards(config.run_id, run_id, {} if config.experiments else {"experiment": config.experiment})
    if not found or not config.selects_experiment(found.get("experiment", "")):
        raise _not_an_id(run_id, config)
    # int() refuses thousands of digits
    if len(found.get("number", "").lstrip("0")) > len(str(HIGHEST)):
        raise _not_an_id(run_id, config)
    if "number" not in found:
        return {"name": found["name"]}
    number = int(found["number"])
    fields = {"experiment": config.experiment, "name": None, "mode": None, **found, "number": number}
    right = config.run_id.format(**fields)
    if right != run_id or number > HIGHEST:
        raise _not_an_id(run_id, config, right if number <= HIGHEST else None)
    return {"number": number, "experiment": found["experiment"]} if config.experiments else {"number": number}


def told_by_more_than_number(config: Config) -> bool:
    """Whether a run's number alone does not tell its id."""
    return bool(config.experiments or re.search(r"\{(name|mode)", config.run_id))


def _not_an_id(run_id: str, config: Config, meant: str | None = None) -> Malformed:
    """The error that names an id which is none, with the right one where it can be guessed."""
    digits = re.findall(r"[0-9]+", run_id)
    if meant is None and digits and len(digits[-1]) < 19 and not told_by_more_than_number(config):
        meant = config.run_id.format(number=int(digits[-1]), experiment=config.experiment)
    if meant is not None:
        return Malformed(f"{run_id!r} is no run id of this experiment; did you mean {meant!r}?")
    example = config.run_id.format(number=932, name="name", experiment=config.experiment or "experiment", mode="mode")
    return Malformed(f"{run_id[:80]!r} is no run id of this experiment (they look like {example!r})")


def _partial(document: Mapping[str, Any], label: str) -> dict[str, Any]:
    """`end` and `partial` of a run that a person closed as partial; empty for any other."""
    ours = document.get("straxflow")
    told = ours.get(PARTIAL) if isinstance(ours, Mapping) else None
    if told is None:
        return {}
    try:
        words = {"by": str(told["by"]), "reason": str(told["reason"])}
        return {"end": told["end"], "partial": Partial(chunks=int(told["chunks"]), **words)}
    except (KeyError, TypeError, ValueError, OverflowError):
        raise Malformed(
            f"{label}: straxflow.{PARTIAL}: expected chunks, end, by and reason, found {_shown(told)}"
        ) from None


def _time(document: Mapping[str, Any], key: str, label: str) -> datetime:
    value = document.get(key)
    if not isinstance(value, datetime):
        raise Malformed(f"{label}: {key}: expected a date, found {_shown(value)}")
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _shown(value: object) -> str:
    """The value of a field in a message, which is to fit a screen."""
    said = repr(value)
    return said if len(said) <= LONGEST else f"{said[:LONGEST]}..."


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON can hold it: a document may hold types of the database's own."""
    plain: dict[str, Any] = json.loads(json.dumps(value, default=str))
    return plain


def _names(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [str(v) for v in value] if isinstance(value, list) else []
