"""How a local job works on the run database alone; it needs no claim and leaves no attempt."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

from straxflow.batch import campaign_name, ensure_batch_id
from straxflow.errors import StraxflowError
from straxflow.folders import check_folders
from straxflow.invocation import Invocation
from straxflow.receipts import State
from straxflow.steps.job import Call, log, log_to, say


def run_local(call: Call, work: Callable[[Call, Invocation], None]) -> None:
    """Run work on the run database as a local job; ends the process with 1 if it fails."""
    log_to(call.log.absolute())
    try:
        config = call.load()
        campaign = campaign_name()
        state = State(config.folders.state / campaign)
        check_folders(config, state)
        work(call, Invocation(config, state, campaign, ensure_batch_id()))
    except Exception as error:
        reason = str(error) if isinstance(error, StraxflowError) else f"{type(error).__name__}: {error} (see the log)"
        log.error("%s", error if isinstance(error, StraxflowError) else traceback.format_exc())
        say(reason)
        sys.exit(1)
