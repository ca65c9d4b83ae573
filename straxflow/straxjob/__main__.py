"""Command line of the strax job: `python -m straxflow.straxjob [--lineage] JOB.json [RESULT.json]`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from straxflow.errors import ConfigError, StraxflowError
from straxflow.memory import reuse_freed
from straxflow.straxjob.request import Request

TRACEBACK_LINES = 40


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write the result whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w") as file:
        json.dump(result, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _work(request: Request, lineage: bool, started: float) -> dict[str, Any]:
    try:
        from straxflow.straxjob import job
    except ImportError as error:
        raise ConfigError(f"{sys.executable} cannot run strax: {error}; name another Python for this step") from error
    if lineage:
        return {"lineage": job.lineage_only(request)}
    result = job.run_job(request, started)
    return result | job.usage()


def _failure(error: BaseException) -> dict[str, Any]:
    lines = "".join(traceback.format_exception(error)).splitlines()
    return {
        "type": type(error).__name__,
        "message": str(error) or type(error).__name__,
        # a known error without a cause needs none
        "traceback": ""
        if isinstance(error, StraxflowError) and not error.__cause__
        else "\n".join(lines[-TRACEBACK_LINES:]),
    }


def main(argv: list[str] | None = None) -> int:
    """Run the job; return 0 only if every target is made and whole (2: a mistake of the user's, 1: others)."""
    started = time.perf_counter()
    reuse_freed()
    parser = argparse.ArgumentParser(prog="python -m straxflow.straxjob", description=__doc__)
    parser.add_argument("job", type=Path, help="the job file (JSON, see straxjob/request.py)")
    parser.add_argument("result", type=Path, nargs="?", help="where to write the result (JSON)")
    parser.add_argument("--lineage", action="store_true", help="only print the targets' lineage hashes")
    arguments = parser.parse_args(argv)
    if not arguments.result and not arguments.lineage:
        parser.error("RESULT.json is missing")
    result: dict[str, Any] = {"ok": False, "error": None}
    code = 0
    try:
        # plugins print as they please: stdout is for the lineages alone
        with contextlib.redirect_stdout(sys.stderr) if arguments.lineage else contextlib.nullcontext():
            result |= _work(Request.read(arguments.job), arguments.lineage, started)
        result["ok"] = True
    except BaseException as error:  # whatever happens, the result says it
        result["error"] = _failure(error)
        code = 2 if isinstance(error, ConfigError) else 1
        if not isinstance(error, StraxflowError):
            print(result["error"]["traceback"], file=sys.stderr)
        first_line = (result["error"]["message"].strip() or "no message").splitlines()[0]
        print(f"straxjob: {result['error']['type']}: {first_line}", file=sys.stderr)
    result["seconds_total"] = round(time.perf_counter() - started, 3)
    if arguments.result:
        write_result(arguments.result, result)
    if arguments.lineage and result["ok"]:
        print(json.dumps(result["lineage"]))
    return code


if __name__ == "__main__":
    sys.exit(main())
