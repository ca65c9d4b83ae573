"""What a process frees is used again: seen by the pages that the kernel clears for it."""

import subprocess
import sys

import pytest

CODE = """
import resource, sys
from straxflow.memory import reuse_freed
if sys.argv[1] == "reused":
    reuse_freed()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def work():
    # not zero, else nothing would be written
    (b"x" * (64 << 20)).count(b"y")

work()
before = faults()
work()
print(faults() - before)
"""


@pytest.mark.parametrize("how", ["reused", "given back"])
def test_freed_memory(how: str) -> None:
    done = subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, text=True, check=True)
    pages = int(done.stdout)
    # 64 MB are 16,384 pages, or 32 huge ones
    assert pages < 10 if how == "reused" else pages >= 30
