"""snakemake, which tells at its end what the status mirror took: python -m bench.with_mirror_told FILE ARGUMENT...

FILE gets the CPU seconds of the mirror's thread and of its log handler; both are clocked where they work.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

from snakemake.cli import main

from straxflow import invocation
from straxflow.mirror import Hints, Mirror

FILE = Path(sys.argv[1])


class ClockedHints(Hints):
    """Its handler, which any thread may call, one at a time."""

    seconds = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Note the run of a job, and how long that took."""
        began = time.thread_time()
        super().emit(record)
        ClockedHints.seconds += time.thread_time() - began


class ClockedMirror(Mirror):
    """The mirror, whose thread tells how long it worked."""

    def _run(self) -> None:
        try:
            super()._run()
        finally:
            self.cpu_seconds = time.thread_time()

    def stop(self, deadline_s: float = 2) -> None:
        """Tell no more, and what it took; a thread that is late has told so at its last look."""
        super().stop(deadline_s)
        FILE.write_text(f"{self.cpu_seconds + ClockedHints.seconds}")


if __name__ == "__main__":
    vars(invocation).update(Mirror=ClockedMirror, Hints=ClockedHints)
    sys.argv = ["snakemake", *sys.argv[2:]]
    main()
