"""The online monitor: what the summaries of the newest runs say, product by product."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from straxflow import summaries
from straxflow.config import Config
from straxflow.errors import StraxflowError
from straxflow.receipts import State
from straxflow.reports.documents import text, time_of
from straxflow.rundb import summaries as in_database
from straxflow.rundb.client import Document, RunDb
from straxflow.summaries import LONGEST_NAME, LONGEST_TEXT, MOST_VALUES, Summary, Value

MOST_RUNS = 60


@dataclass(frozen=True)
class Figures:
    """A run's summary of a product."""

    run: str
    values: Mapping[str, Value]
    mode: str | None = None
    made: datetime | None = None
    plot: str | None = None


@dataclass(frozen=True)
class Monitored:
    """A product that has summaries, newest run first."""

    product: str
    runs: Sequence[Figures]


def told(db: RunDb, config: Config, campaign: str) -> list[Monitored]:
    """As the run database tells."""
    found = [
        Monitored(product, [_figures(row) for row in in_database.newest(db, campaign, product, MOST_RUNS)])
        for product in config.products
    ]
    return [one for one in found if one.runs]


def here(config: Config, state: State) -> list[Monitored]:
    """As the state folder tells."""
    runs = list(islice(sorted(state.all_runs(), reverse=True), MOST_RUNS))
    found = [Monitored(product, list(_read(state, runs, product))) for product in config.products]
    return [one for one in found if one.runs]


def of_run(config: Config, state: State, run: str) -> list[Monitored]:
    """The summaries of one run."""
    found = [Monitored(product, list(_read(state, [run], product))) for product in config.products]
    return [one for one in found if one.runs]


def plot_here(config: Config, state: State, run: str, product: str) -> tuple[str, bytes] | None:
    """Kind and content of a plot in the state folder."""
    if product not in config.products:
        return None
    pictures = ((kind, summaries.plot_of(state, run, product, kind)) for kind in summaries.KINDS)
    return next(((kind, picture) for kind, picture in pictures if picture), None)


def plot_told(db: RunDb, campaign: str, run: str, product: str) -> tuple[str, bytes] | None:
    """Kind and content of a plot in the run database."""
    return in_database.plot(db, campaign, run, product)


def _read(state: State, runs: Iterable[str], product: str) -> Iterator[Figures]:
    for run in runs:
        try:
            summary = state.find(run, product, Summary)
        except (StraxflowError, OSError):
            continue
        if summary:
            yield Figures(run, summary.values, made=summary.made, plot=summary.plot)


def _figures(row: Document) -> Figures:
    """A document with care: the collection may be written by others too."""
    values: Any = row.get("values")
    pairs = [v for v in values if isinstance(v, Mapping)] if isinstance(values, list) else []
    picture = row.get("plot")
    return Figures(
        run=text(row.get("run")) or "?",
        values={str(v.get("name"))[:LONGEST_NAME]: _value(v.get("value")) for v in pairs[:MOST_VALUES]},
        mode=text(row.get("mode")),
        made=time_of(row.get("made")),
        plot=text(picture.get("kind")) if isinstance(picture, Mapping) else None,
    )


def _value(value: object) -> Value:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return str(value)[:LONGEST_TEXT]
