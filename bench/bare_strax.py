"""The strax part of the bare loop: RUN.json LIVE OUTPUT WORKERS; makes raw_records with the demo context."""

import json
import sys
from pathlib import Path

import strax

from straxflow.detectors.demo import context

facts = json.loads(Path(sys.argv[1]).read_text())
st = context(run=facts, source=sys.argv[2], output=sys.argv[3])
st.storage = [strax.DataDirectory(sys.argv[3])]
workers = int(sys.argv[4])
st.make(facts["run"], "raw_records", max_workers=workers, processor="threaded_mailbox" if workers > 1 else None)
