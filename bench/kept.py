"""What benches found, kept from one call to the next, so that they need not all be measured at once."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from bench.result import Judged, Result, Table


def stamped(result: Result, seconds: float) -> Result:
    """The result with the time of its end, now."""
    return replace(result, measured=f"Measured {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, in {seconds:.0f} s.")


def keep(folder: Path, name: str, result: Result) -> None:
    """Write a result down, in place of what the same bench found before."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(asdict(result)))


def find(folder: Path, name: str) -> Result | None:
    """What a bench found last, if that was kept."""
    try:
        kept = json.loads((folder / f"{name}.json").read_text())
    except FileNotFoundError:
        return None
    tables = [Table(**table) for table in kept.pop("tables")]
    return Result(judged=[Judged(**one) for one in kept.pop("judged")], tables=tables, **kept)
