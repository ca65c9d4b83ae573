"""Campaigns of `straxflow reprocess`: what each makes stands in its state folder, laid over the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from straxflow.config import LIVE, Config
from straxflow.config.load import ROOT, merge
from straxflow.errors import ConfigError
from straxflow.fsio import write_atomic
from straxflow.receipts import State

FILE = "campaign.json"


class Campaign(BaseModel):
    """campaign.json: what a campaign makes, and from what; never changed once it is begun."""

    model_config = ConfigDict(extra="forbid")

    name: str
    source: str
    products: list[str]
    corrections: str | None = None
    config: dict[str, Any] = {}
    by: str
    made: AwareDatetime

    def same_work(self, other: Campaign) -> bool:
        """Whether another one makes the same from the same."""
        return self.model_dump(exclude={"by", "made"}) == other.model_dump(exclude={"by", "made"})

    def __str__(self) -> str:
        parts = [f"makes {', '.join(self.products)}", f"from {self.source}"]
        parts += [f"corrections {self.corrections}"] if self.corrections else []
        parts += [", ".join(f"{key}={value!r}" for key, value in self.config.items())] if self.config else []
        return f"{self.name}: {'; '.join(parts)}"


def read(state_folder: Path, name: str) -> Campaign | None:
    """The campaign of this name; None if `straxflow reprocess` did not make it.

    Raises:
        ConfigError: if its file is not readable.
    """
    file = state_folder / name / FILE
    try:
        return Campaign.model_validate_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise ConfigError(f"{file}: not the description of a campaign: {str(error).splitlines()[0]}") from None


def write(state: State, campaign: Campaign) -> None:
    """Begin a campaign; its state folder is there."""
    write_atomic(state.folder / FILE, campaign.model_dump_json(indent=1).encode() + b"\n")


def lay_over(settings: dict[str, Any], name: str) -> None:
    """Change unchecked settings to those of a campaign, in place; of one that is not of `reprocess` they stay.

    Raises:
        ConfigError: if the campaign's file is not readable.
    """
    folders = settings.get("folders")
    place = folders.get("state") if isinstance(folders, dict) else None
    if not isinstance(place, (str, Path)):
        return  # the check of the settings says what is wrong
    campaign = read(ROOT / Path(place).expanduser(), name)
    if campaign is None:
        return
    products = settings.get("products")
    corrections = settings.get("corrections")
    version = campaign.corrections
    changes: dict[str, Any] = {"strax": {"config": dict(campaign.config)}}
    if version is not None and isinstance(corrections, dict):
        for key in ("config", "context_kwargs"):
            filled = fill(corrections.get(key) or {}, {"version": version})
            changes["strax"][key] = {**filled, **changes["strax"].get(key, {})}
    merge(settings, changes)
    settings["reprocessing"] = {"products": campaign.products, "from": campaign.source, "corrections": version}
    made = [p for n, p in products.items() if n in campaign.products] if isinstance(products, dict) else []
    if isinstance(steps := settings.get("steps"), list) or steps is None:
        from_live = any(isinstance(product, dict) and product.get("from") == LIVE for product in made)
        all_steps = steps or list(Config.model_fields["steps"].default)
        settings["steps"] = [step for step in all_steps if step != "transfer" or from_live]


def fill(value: Any, fields: dict[str, Any]) -> Any:
    """Fill placeholders in the texts of a value; a text that is nothing but one takes its type too."""
    if isinstance(value, dict):
        return {key: fill(one, fields) for key, one in value.items()}
    if isinstance(value, list):
        return [fill(one, fields) for one in value]
    if not isinstance(value, str):
        return value
    if value[:1] + value[-1:] == "{}" and value[1:-1] in fields:
        return fields[value[1:-1]]
    for name, one in fields.items():
        value = value.replace(f"{{{name}}}", str(one))
    return value


def source_state(config: Config, state: State, product: str) -> State:
    """The state folder that holds the receipts of a product: this campaign's, or that of the one it is taken from."""
    campaign = config.taken_from(product)
    return State(state.folder.parent / campaign) if campaign else state
