"""The strax part of the bare loop: RUN.json LIVE OUTPUT WORKERS MODULE:CONTEXT TARGET...; a fresh process, as straxer.

Needs strax and what the context needs, and nothing of straxflow's own.
"""

import importlib
import json
import sys
from pathlib import Path

import strax

facts_file, live, output, workers, context, *targets = sys.argv[1:]
module, _, function = context.partition(":")
facts = json.loads(Path(facts_file).read_text())
st = getattr(importlib.import_module(module), function)(run=facts, source=live, output=output)
st.storage = [strax.DataDirectory(output)]
for target in targets:
    processor = "threaded_mailbox" if int(workers) > 1 else None
    st.make(facts["run"], target, max_workers=int(workers), processor=processor)
