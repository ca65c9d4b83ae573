"""Two of everything, where tests/integration does not have it already: people who name the same thing at once."""

from __future__ import annotations

import contextlib

import pytest

from tests.faults.checks import nothing_is_lost, told_clearly
from tests.site import Site


@pytest.mark.slow
@pytest.mark.fault(
    group="two",
    broken="three people name the same target in the same second",
    left="one invocation that works on it; the others are refused, with its host and pid, before any job of theirs",
    next="finds all done",
)
def test_the_same_target_at_once(site: Site) -> None:
    site.take(1, "led", 0.5)
    target = "runs/000001/released.json"
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(site.background(target)) for _ in range(3)]
        results = [one.wait() for one in started]
    (won,) = [result for result in results if result.code == 0]
    for result in results:
        if result is not won:
            told_clearly(result, "run 000001", "works on it (host ")
            assert result.jobs == []
    assert len({a.batch for a in site.attempts("000001")}) == 1
    again = site.snakemake()
    assert again.code == 0, again.output
    nothing_is_lost(site, done=[1])
    assert len([a for a in site.attempts("000001") if a.step == "process"]) == 1
