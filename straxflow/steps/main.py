"""What a job of the workflow does: the step that its words name, with the configuration of its invocation."""

from __future__ import annotations

import argparse
import importlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from straxflow import config as settings
from straxflow.batch import BATCH, config_file, ensure_batch_id
from straxflow.config import LIVE, Config
from straxflow.errors import StraxflowError
from straxflow.owner import Owner
from straxflow.receipts import build_models
from straxflow.steps.job import Call, run_job
from straxflow.steps.local import run_local

STEPS = {name: f"straxflow.steps.{name}" for name in
         ("transfer", "register_live", "process", "checksum", "move_out", "register", "release")}  # fmt: skip
LOCAL = {"claim": "claim_batch", "rundoc": "write_facts"}
"""What needs no claim: functions of straxflow.steps.claim."""


def main(words: list[str]) -> int:
    """Run a job: STEP RECEIPT LOG [THREADS], paths from the state folder; ends the process if it fails."""
    asked = _parser().parse_args(words)
    # runs/RUN/RECEIPT is of the live data, runs/RUN/PRODUCT/RECEIPT of a product
    _, run, *product = asked.receipt.parent.parts if asked.step != "claim" else ("", "")
    call = Call(**vars(asked), run=run, product=product[0] if product else LIVE, load=config_of_batch)
    if call.step in LOCAL:
        run_local(call, getattr(_module("straxflow.steps.claim"), LOCAL[call.step]))
    else:
        run_job(call, _module(STEPS[call.step]).step)
    return 0


@lru_cache
def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="straxflow-step", description=__doc__)
    parser.add_argument("step", choices=[*STEPS, *LOCAL])
    parser.add_argument("receipt", type=Path)
    parser.add_argument("log", type=Path)
    parser.add_argument("threads", type=int, nargs="?", default=1)
    return parser


def _module(name: str) -> Any:
    return importlib.import_module(name)


def config_of_batch() -> Config:
    """The configuration of this invocation, from the file that its main process wrote.

    Raises:
        StraxflowError: if there is none.
    """
    return _config_in(Path(config_file(ensure_batch_id())).absolute())


@lru_cache
def _config_in(file: Path) -> Config:
    try:
        return settings.load(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise StraxflowError(
            f"{file}: there is no configuration of this invocation: "
            "snakemake was started without its hooks; leave --no-hooks out"
        ) from None
    except ValueError as error:
        raise StraxflowError(f"{file}: is not readable: {error}; start snakemake again") from None


def preload() -> None:
    """What every job needs, for a process that is to be forked."""
    for name in STEPS.values():
        _module(name)
    _module("straxflow.steps.claim")
    # what most DAQs compress with; the check of live data loads the others when it meets them
    _module("lz4.frame")
    build_models()
    _parser().parse_args(["claim", "receipt", "log"])
    # connects to nothing and starts no thread, but reads what every first client of a process reads
    MongoClient("127.0.0.1", connect=False).close()


def foresee(order: tuple[str, list[str], dict[str, str]]) -> None:
    """What the jobs of one invocation have in common, from the first one's folder, words and environment."""
    folder, _, environment = order
    _config_in(Path(folder, config_file(environment[BATCH])))
    Owner.current()
