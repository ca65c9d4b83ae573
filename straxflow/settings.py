"""A digest of what the configuration says about how a product is made: receipts with another one are outdated."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from straxflow.config import LIVE, Config


def process_settings(config: Config, product: str) -> dict[str, Any]:
    """Everything in the configuration that decides what a product's data are; its source's settings too."""
    chosen = config.products[product]
    source = None if chosen.source == LIVE else process_settings(config, chosen.source)
    if chosen.kind == "command":
        version = config.reprocessing.corrections if config.reprocessing and config.makes(product) else None
        # a command knows no lineage but this one
        return {"source": source, "command": chosen.command, **({"corrections": version} if version else {})}
    return {
        "source": source,
        "targets": config.targets(product),
        "context": chosen.context or config.strax.context,
        "context_kwargs": {**config.strax.context_kwargs, **chosen.context_kwargs},
        "config": {**config.strax.config, **chosen.config},
    }


def settings_digest(config: Config, product: str) -> str:
    """Ten hexadecimal digits that change when a product would be made differently."""
    text = json.dumps(process_settings(config, product), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def failure_settings(config: Config) -> str:
    """Ten hexadecimal digits that change when a product that failed by its configuration may fare better."""
    told = config.model_dump(mode="json", include={"products", "strax", "container"})
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:10]
