"""What a run of a reprocessing campaign waits for: its corrections, and the products that it is made from."""

from __future__ import annotations

import subprocess
import tempfile

from straxflow import inherited
from straxflow.campaigns import fill, source_state
from straxflow.config import LIVE, Config
from straxflow.config.words import fill_command
from straxflow.receipts import Checksums, Processed, RunFacts, State, Stored
from straxflow.rundb.client import RunDb

LONGEST = 300
"""Characters of a reason."""


def obstacle(config: Config, state: State, db: RunDb, facts: RunFacts) -> str | None:
    """Why a run must wait; None if nothing keeps it. Only runs of a reprocessing campaign ever do."""
    if config.reprocessing is None:
        return None
    return _source_missing(config, state, facts) or _corrections_missing(config, db, facts)


def _source_missing(config: Config, state: State, facts: RunFacts) -> str | None:
    for product in config.products_for(facts.mode):
        source = config.products[product].source
        campaign = config.taken_from(source) if source != LIVE else None
        if campaign is None:
            continue
        there = source_state(config, state, source)
        if not all(there.path(facts.run, source, model).is_file() for model in (Processed, Checksums, Stored)):
            return f"{source} is not stored in campaign {campaign}"
    return None


def _corrections_missing(config: Config, db: RunDb, facts: RunFacts) -> str | None:
    version = config.reprocessing.corrections if config.reprocessing else None
    settings = config.corrections
    if version is None:
        return None
    fields = {
        "run": facts.run, "number": facts.number, "mode": facts.mode, "start": facts.start, "version": version
    }  # fmt: skip
    what = f"corrections {version} are missing"
    if settings.query:
        documents = db.database(settings.query.database)[settings.query.collection]
        found = documents.find_one(fill(settings.query.filter, fields), {"_id": 1})
        return None if found else what
    if settings.check is None:
        return None
    argv = fill_command(settings.check, {**fields, "start": facts.start.isoformat()})
    with tempfile.TemporaryFile() as words:
        try:
            code = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                env=inherited.environment(config),
                timeout=settings.timeout_s,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            return f"{what}: corrections.check did not answer within {settings.timeout_s:g} s"
        except OSError as error:
            return f"{what}: corrections.check cannot be run: {argv[0]}: {error.strerror}"
        if code == 0:
            return None
        words.seek(0)
        said = words.read().decode(errors="replace").strip().splitlines()
    return f"{what}: {said[-1][:LONGEST] if said else f'corrections.check ended with exit code {code}'}"
