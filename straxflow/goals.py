"""From what a person wants of a run, a product or a data type, to the receipts that are snakemake's targets."""

from __future__ import annotations

from collections.abc import Sequence

from straxflow.config import Config
from straxflow.errors import UsageError
from straxflow.plan import RECEIPTS, final_receipts
from straxflow.straxjob.request import did_you_mean


def product_of(config: Config, name: str) -> str:
    """The product of this name, or the one that has this data type among its targets.

    Raises:
        UsageError: if there is none, with what was probably meant.
    """
    if name in config.products:
        return name
    owners = {target: product for product in config.products for target in config.targets(product)}
    if name in owners:
        return owners[name]
    raise UsageError(
        f"{name!r} is neither a product nor a data type of one{did_you_mean(name, {*config.products, *owners})}"
    )


def goals(config: Config, run: str, mode: str, products: Sequence[str] = ()) -> list[str]:
    """The receipts, relative to the state folder, that stand once these products are made (all that a site does, if
    none is named); products that are not made of runs of this mode are left out."""
    if not products:
        return final_receipts(config, run, mode)
    steps = [step for step in RECEIPTS if step in config.steps]
    if not steps:
        raise UsageError(f"this site makes no products (steps: {', '.join(config.steps)})")
    last = RECEIPTS[steps[-1]].name
    return [f"runs/{run}/{product}/{last}" for product in config.products_for(mode) if product in products]
