"""One strax job by a server: SERVER PYTHON... -m straxflow.straxjob JOB.json RESULT.json; without it, that command."""

import os
import sys

# called by its path, as `python -S`: most jobs need no more than a word with the server
sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120

from straxflow.forkclient import ask  # noqa: E402

server, *command = sys.argv[1:]
code = ask(server, command[command.index("-m") + 2 :])
if code is None:
    os.execvp(command[0], command)
sys.exit(code)
