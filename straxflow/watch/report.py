"""What a watcher tells of an invocation: how it ended, what it said last, that it hangs."""

from __future__ import annotations

import re
import threading
from collections import Counter
from pathlib import Path

from straxflow.config import Config
from straxflow.hooks import Facts, run_hook
from straxflow.watch.invocations import Running

LINES = 8
GIVEN_BACK = re.compile(r"^straxflow: run \w+: (\w+)", re.MULTILINE)


def tail(path: Path, lines: int = LINES) -> str:
    """The end of a log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 20_000))
            text = file.read().decode(errors="replace")
    except OSError as error:
        return f"  (its log cannot be read: {error})"
    return "\n".join(f"  {line}" for line in text.splitlines()[-lines:])


def summary(one: Running) -> str:
    """How the runs of an invocation stood at its end, by what it said itself."""
    try:
        states = Counter(GIVEN_BACK.findall(one.log.read_text(encoding="utf-8", errors="replace")))
    except OSError:
        states = Counter()
    count = len(one.runs or [])
    how = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    return f"{count} run{'s' * (count != 1)} claimed{'; ' + how if how else ''}"


def call_hook(config: Config, reason: str, batch: str = "", log: str = "") -> None:
    """Call the program that tells people that nothing moves; nobody waits for it."""
    facts = Facts(state="stalled", reason=reason, batch=batch, log=log)
    threading.Thread(target=run_hook, args=(config, "on_stall", facts), name="straxflow-hook", daemon=True).start()
