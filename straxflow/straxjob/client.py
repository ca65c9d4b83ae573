"""One strax job by a server: SERVER PYTHON... -m straxflow.straxjob JOB.json RESULT.json; without it, that command."""

import sys

# called by its path, as `python -S`: most jobs need no more than a word with the server
sys.path[0] = sys.path[0].rsplit("/", 2)[0]

from straxflow.forkclient import ask, leave  # noqa: E402

server, *command = sys.argv[1:]
code = ask(server, command[command.index("-m") + 2 :])
if code is None:
    import os

    os.execvp(command[0], command)
leave(code)
