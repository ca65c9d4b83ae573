"""After an invocation that did not end by itself: what it left is stopped, and its runs are given back."""

from __future__ import annotations

import logging

from straxflow import attempts, claimfile
from straxflow.config import Config
from straxflow.errors import StraxflowError
from straxflow.plan import standing
from straxflow.progress import product_states
from straxflow.receipts import State
from straxflow.rundb import history
from straxflow.rundb.claims import Claimer, wanted_products
from straxflow.rundb.client import RunDb
from straxflow.rundb.pending import readable
from straxflow.rundb.rundoc import Run
from straxflow.watch.invocations import Running

log = logging.getLogger(__name__)


def give_back(db: RunDb, config: Config, state: State, campaign: str, running: Running) -> list[str]:
    """Give back what a dead invocation still holds: done, or as it was before, for it was not the runs' fault.

    Returns:
        the runs.
    """
    claimer = Claimer(db, config, campaign, running.batch, running.owner)
    given = []
    for run in readable(claimer.held(), config, campaign, log.warning):
        try:
            _give_one_back(claimer, config, state, run, running)
        except (StraxflowError, OSError, KeyError, TypeError, ValueError) as error:
            # it can be taken over by anybody: its owner is dead
            log.warning("run %s: not given back: %s", run.id, error)
            continue
        given.append(run.id)
    return given


def _give_one_back(claimer: Claimer, config: Config, state: State, run: Run, running: Running) -> None:
    token = int(run.campaign(claimer.campaign)["token"])
    attempts.complete_open(state, run.id, running.batch, asked=running.told is not None)
    claim = claimfile.read(state, run.id)
    if claim and claim.token == token:
        products = wanted_products(run.campaign(claimer.campaign))
        since, left_out = claim.made, claim.left_out
        stands = standing(config, state, run.id, run.facts.mode, since, products, left_out)
        states = product_states(config, state, run.id, run.facts.mode, since, left_out)
        history.record(claimer.db, config, claimer.campaign, attempts.all_of(state, run.id))
        if stands.state == "done":
            claimer.release(run.object_id, token, stands, states)
        else:
            claimer.undo(run.object_id, token, states)
        return
    claimer.undo(run.object_id, token)
