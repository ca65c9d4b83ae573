"""docs/reliability.md tells of each case that there is, and of no other."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.faults.reliability import PAGE, ROOT, told_rows

COLLECT = """
import sys
from pathlib import Path
import pytest
from tests.faults.reliability import case_of, rows_of

class Rows:
    def pytest_collection_finish(self, session):
        cases = [(item.nodeid, case_of(item), "passed") for item in session.items]
        Path(sys.argv[1]).write_text("".join(row.text() + "\\n" for row in rows_of(cases)))

sys.exit(pytest.main(["--collect-only", "-qq", "-m", "fault", "-p", "no:cacheprovider"], plugins=[Rows()]))
"""


def test_the_page_has_a_row_that_passed_for_each_case(tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    done = subprocess.run([sys.executable, "-c", COLLECT, rows], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    wanted = told_rows(rows.read_text(encoding="utf-8"))
    found = told_rows(PAGE.read_text(encoding="utf-8"))
    assert wanted
    odd = [*_without(wanted, found, "no such row"), *_without(found, wanted, "no such case, or it did not pass")]
    assert not odd, "make reliability puts docs/reliability.md in step:\n" + "\n".join(odd)
    assert found == wanted, "the rows are there, in another order"


def _without(some: list[str], others: list[str], told: str) -> Iterator[str]:
    return (f"{told}: {row}" for row in some if row not in others)
