"""Runs as a person names them."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from straxflow.config import Config, load
from straxflow.errors import UsageError
from straxflow.receipts import RunFacts, State, write
from straxflow.rundb.rundoc import HIGHEST
from straxflow.runlist import parse_runs
from tests.unit.test_config import MINIMAL

TEMPLATES = ("{number:06d}", "{experiment}_r{number:04d}", "{name}", "{mode}_{number}", "{name}_{number:05d}")


def config(template: str = "{number:06d}") -> Config:
    return load({**MINIMAL, "run_id": template, "experiment": "xams"})


DEFAULT = config()
numbers = st.integers(0, 10**7)
ranges = st.tuples(numbers, st.integers(0, 500)).map(lambda r: (r[0], r[0] + r[1]))


@settings(deadline=None)
@given(st.lists(st.one_of(numbers, ranges), min_size=1, max_size=12), st.lists(numbers, max_size=20))
def test_any_mix_of_words_names_the_union(named: list[Any], others: list[int]) -> None:
    sets = [range(n, n + 1) if isinstance(n, int) else range(n[0], n[1] + 1) for n in named]
    words = [f"{n}" if isinstance(n, int) else f"{n[0]}-{n[1]}" for n in named]
    found = parse_runs(words, DEFAULT)
    expected = set().union(*sets)
    assert found.count == len(expected)
    assert {n for low, high in found.ranges for n in range(low, high + 1)} == expected
    gaps = [b[0] - a[1] for a, b in zip(found.ranges, found.ranges[1:], strict=False)]
    assert all(gap > 1 for gap in gaps)
    for number in [
        *others,
        *(edge + step for low, high in found.ranges for edge in (low, high) for step in (-1, 0, 1)),
    ]:
        assert found.contains(number) is (number in expected) is _matches(found.query(), number)
    assert found.unmatched(expected) == []
    assert found.unmatched([n for n in others if n not in expected]) == words


@settings(deadline=None)
@given(st.lists(numbers, min_size=1, max_size=6), st.sampled_from(TEMPLATES))
def test_a_number_and_its_run_id_name_the_same_run(named: list[int], template: str) -> None:
    site = config(template)
    ids = [template.format(number=n, experiment="xams", name=f"n{n}", mode="led") for n in named]
    by_id, by_number = parse_runs(ids, site), parse_runs([str(n) for n in named], site)
    assert by_id.single() == list(dict.fromkeys(ids))
    if template == "{name}":
        assert (by_id.ranges, by_id.names) == ((), tuple(dict.fromkeys(ids)))
        assert all(by_id.contains(0, name) for name in ids)
        assert by_number.single() == []
    else:
        assert by_id.ranges == by_number.ranges
    if template in TEMPLATES[:2]:
        assert by_id.single() == by_number.single()


@settings(deadline=None)
@given(st.text(max_size=12), st.sampled_from(TEMPLATES))
def test_any_word_is_read_or_refused_by_name(word: str, template: str) -> None:
    if word.startswith("@"):
        return
    try:
        found = parse_runs([word], config(template))
    except UsageError as error:
        assert repr(word[:40])[1:-1] in str(error)
    else:
        assert found.count >= 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["", "# ", "  # x 900-"]), ranges), max_size=8), st.booleans())
def test_a_file_names_what_its_lines_name(lines: list[tuple[str, tuple[int, int]]], crlf: bool) -> None:
    with tempfile.NamedTemporaryFile("w", newline="") as file:
        end = "\r\n" if crlf else "\n"
        file.write("".join(f"{lead}{low}-{high}  # note{end}{end}" for lead, (low, high) in lines))
        file.flush()
        real = [f"{low}-{high}" for lead, (low, high) in lines if not lead]
        if real:
            assert parse_runs([f"@{file.name}", "5"], DEFAULT).ranges == parse_runs(["5", *real], DEFAULT).ranges
        else:
            with pytest.raises(UsageError, match="names no run"):
                parse_runs([f"@{file.name}"], DEFAULT)


@pytest.mark.parametrize(
    ("template", "word", "told"),
    [
        ("{number:06d}", "00932", "'00932' is no run id of this experiment; did you mean '000932'?"),
        ("{number:06d}", "run932", "did you mean '000932'?"),
        ("{number:06d}", "950-900", "'950-900': the range ends before it begins; did you mean '900-950'?"),
        ("{number:06d}", "abc", "'abc' is no run id of this experiment (they look like '000932'); expected a number"),
        ("{number:06d}", "9,8", "did you mean '000008'?"),
        ("{number:06d}", "", "'' is no run id"),
        ("{number:06d}", "-5", "did you mean '000005'?"),
        ("{number:06d}", "9" * 5000, "run numbers go up to"),
        ("{number:06d}", "0" + "9" * 5000, "is no run id"),
        ("{number:06d}", f"5-{HIGHEST + 1}", "run numbers go up to"),
        ("{experiment}_r{number:04d}", "xams_r932", "did you mean 'xams_r0932'?"),
        ("{experiment}_r{number:04d}", "XAMS_r0932", "did you mean 'xams_r0932'?"),
        ("{experiment}_r{number:04d}", "000932", "did you mean 'xams_r0932'?"),
        ("{name}", "a-b", "they look like 'name'"),
        ("{number:06d}", "@/none/such", "@/none/such: the list of runs cannot be read: No such file"),
        ("{number:06d}", "@/", "cannot be read: Is a directory"),
    ],
)
def test_a_wrong_word_is_named_with_what_was_meant(template: str, word: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_runs(["900-901", word], config(template))
    assert told in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_wrong_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "runs.txt"
    file.write_text("\ufeff932\n# a comment\n\n00933 # why\n")
    with pytest.raises(UsageError, match=r"runs\.txt, line 4: '00933' .* did you mean '000933'\?"):
        parse_runs([f"@{file}"], DEFAULT)
    file.write_text("@other\n")
    with pytest.raises(UsageError, match="line 1: '@other': a list of runs in a list of runs"):
        parse_runs([f"@{file}"], DEFAULT)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="cannot be read"):
        parse_runs([f"@{file}"], DEFAULT)


def test_no_words_are_no_runs() -> None:
    none = parse_runs([], DEFAULT)
    assert (none.count, none.contains(0), none.query()) == (0, False, {"number": {"$in": []}})


def test_the_largest_number_is_found() -> None:
    found = parse_runs([str(HIGHEST), f"3-{HIGHEST}"], DEFAULT)
    assert found.contains(HIGHEST)
    assert not found.contains(2)


@pytest.mark.parametrize("template", ["{number:06d}", "{name}", "{mode}_{number}"])
def test_those_that_are_here(tmp_path: Path, template: str) -> None:
    state, site = State(tmp_path), config(template)
    here = {}
    for number in (899, 900, 932, 951):
        run = template.format(number=number, name=f"n{number}", mode="led")
        start = datetime(2026, 1, 1, tzinfo=UTC)
        state.run(run).mkdir(parents=True)
        write(state.run(run) / "run.json", RunFacts(run=run, number=number, start=start, end=start, mode="led"))
        here[number] = run
    (state.runs / "odd-one").mkdir()
    (state.runs / "n7").mkdir()
    assert parse_runs(["900-950", "3"], site).ids(site, state) == [here[900], here[932]]
    assert parse_runs([here[951], "n7"][: 2 if template == "{name}" else 1], site).ids(site, state)[-1] == (
        "n951" if template == "{name}" else here[951]
    )


def _matches(query: dict[str, Any], number: int) -> bool:
    if "$or" in query:
        return any(_matches(one, number) for one in query["$or"])
    wanted = query["number"]
    return number in wanted["$in"] if "$in" in wanted else wanted["$gte"] <= number <= wanted["$lte"]
