import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from straxflow.lastwords import LONGEST, last_words, last_words_of

TRACEBACK = """\
Loading raw_records: |          | 0.00 % [00:00<?]\rLoading raw_records: |####      | 40 % [00:01<00:02]
Traceback (most recent call last):
  File "/x/strax/plugin.py", line 12, in compute
    return self.do(
           ^^^^^^^^
  File "/x/strax/chunk.py", line 7, in do
    raise KeyError("inner")
KeyError: 'inner'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/x/strax/context.py", line 3, in iter
    raise RuntimeError("no chunk")
RuntimeError: no chunk
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("\n  \n----\n", ""),
        (TRACEBACK, "KeyError: 'inner' | RuntimeError: no chunk"),
        ("reading\nerror: file x is cut short\ncleaning up\n", "error: file x is cut short | cleaning up"),
        ("one\ntwo\nthree\n", "three"),
        ("failed 1\nfailed 2\nfailed 3\nfailed 4\n", "failed 2 | failed 3 | failed 4"),
        ("failed\nfailed\nfailed\n", "failed"),
        (" 50%|#####     | 5/10 [00:01<00:01, 4.2it/s]\r100%|#####| 10/10 [00:02<00:00]\nBus error\n", "Bus error"),
        ("      1,234 100%   12.3MB/s    0:00:01 (xfr#1)\nrsync error: some files vanished (code 24)\n",
         "rsync error: some files vanished (code 24)"),
        ("\x1b[31mERROR\x1b[0m: red\n", "ERROR: red"),
        ("cannot connect to mongodb://me:secret@host/db\n", "cannot connect to mongodb://***@host/db"),
        ("2026-11-21 06:47:07,123 INFO process of raw begins\n2026-11-21 06:47:08,1 ERROR bad\n",
         "2026-11-21 06:47:08,1 ERROR bad"),
        ("Fatal Python error: Segmentation fault\n\nCurrent thread 0x00007f (most recent call first):\n"
         '  File "/x.py", line 3 in f\n', "Fatal Python error: Segmentation fault"),
    ],
)  # fmt: skip
def test_what_means_something(text: str, expected: str) -> None:
    assert last_words(text) == expected


def test_a_real_traceback(tmp_path: Path) -> None:
    program = "def f():\n    x = {}\n    return x['none'] + 1\ntry:\n    f()\nexcept KeyError:\n"
    (tmp_path / "bad.py").write_text(program + "    raise OSError('disk gone')")
    said = subprocess.run([sys.executable, "bad.py"], cwd=tmp_path, capture_output=True, text=True, check=False).stderr
    assert "line 3, in f" in said
    assert last_words(said) == "KeyError: 'none' | OSError: disk gone"


def test_the_end_of_a_long_log_from_a_position_on(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"error: of an earlier attempt\n")
    begin = log.stat().st_size
    with log.open("ab") as file:
        file.write(b"line \xff\n" * 100_000 + b"the end\n")
    assert last_words_of(log, begin) == "the end"
    assert last_words_of(log, log.stat().st_size) == ""
    assert last_words_of(tmp_path / "none") == ""


@given(st.text())
def test_any_text_gives_one_printable_line(text: str) -> None:
    said = last_words(text)
    assert len(said) <= LONGEST
    assert said.isprintable()
