"""Any order of claims, deaths, failures and people's words, against a model of what straxflow promises of each run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from straxflow.attempts import Attempt
from straxflow.config import Config
from straxflow.errors import RunDbError
from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from straxflow.owner import Owner
from straxflow.plan import Standing
from straxflow.rundb.chosen import choose
from straxflow.rundb.claims import Claimed, Claimer
from straxflow.rundb.client import RunDb, connect
from straxflow.rundb.gate import look
from straxflow.rundb.orders import Order, Orders
from straxflow.rundb.pending import anything_due, candidates
from straxflow.rundb.switch import set_switch
from straxflow.rundb.whynot import why_not
from straxflow.runlist import parse_runs
from tests.site import Site

GIVE_UP_AFTER = 4
SUMS_GIVEN_UP_AFTER = 2
NUMBERS = (1, 2, 3)
CALIBRATION = 1
"""This run's mode is worked on only if a tag says so."""
RUNS, WHICH = st.sampled_from(NUMBERS), st.integers(0, 50)
TAGS = st.sampled_from(["abandon", "hold-processing", "process", "prioritize"])


@dataclass
class Failed:
    """What is remembered of a product that failed."""

    count: int
    permanent: str | None = None
    settings: int | None = None


@dataclass
class Known:
    """What is remembered of the failures of a run."""

    failures: int = 0
    due: bool | None = None
    """Whether the pause of a failed run is over; None: it is not tried again by itself."""
    waits: bool = False
    settings: int | None = None
    products: dict[str, Failed] = field(default_factory=dict)

    def left_out(self, now_settings: int) -> set[str]:
        """Products that are not made."""
        out = {
            name
            for name, one in self.products.items()
            if one.permanent == "damaged"
            or (one.permanent == "misconfigured" and one.settings == now_settings)
            or (name == "sums" and one.count >= SUMS_GIVEN_UP_AFTER)
        }
        return out | {"sums"} if "raw" in out else out


@dataclass
class Held:
    """A claim, and what the run's state and its asker were before."""

    batch: str
    token: int
    named: bool
    before: tuple[str | None, bool]
    left_out: set[str]
    lapsed: bool = False


@dataclass
class Model:
    """What is promised of a run."""

    word: str | None = None
    asked: bool = False
    """Whether the word is a person's."""
    known: Known = field(default_factory=Known)
    tags: set[str] = field(default_factory=set)
    held: Held | None = None
    token: int = 0

    def says(self, word: str) -> None:
        """A person gives the run a state."""
        self.word, self.asked = word, word == "pending"


def claim(run: Model) -> Held:
    """The claim on a run that is held."""
    assert run.held
    return run.held


held_ones = precondition(lambda machine: any(run.held for run in machine.runs.values()))


class Machine(RuleBasedStateMachine):
    """Three runs, some invocations on another host, and people."""

    site: Site
    configs: tuple[Config, Config]
    db: RunDb

    @initialize()
    def begin(self) -> None:
        self.site.runs.delete_many({})
        for number in NUMBERS:
            self.site.document(number, "calibration" if number == CALIBRATION else "background")
        # these ask loudest, and must not keep the others from being claimed
        self.site.document(7, tags=[{"name": "prioritize"}], start="yesterday", processing_status="pending")
        for _ in range(2):
            self.site.document(8, tags=[{"name": "prioritize"}], processing_status="pending")
        set_switch(self.db, self.site.config, "on")
        self.runs = {number: Model() for number in NUMBERS}
        self.old: list[tuple[int, Held]] = []
        self.batches = 0
        self.settings = 0
        self.on = True

    # --- what the model says -------------------------------------------------------------------------------

    @property
    def config(self) -> Config:
        return self.configs[self.settings]

    def claimable(self, number: int) -> bool:
        """Whether an invocation may claim a run, as long as the switch is on."""
        one = self.runs[number]
        if one.tags & {"abandon", "hold-processing"} or (number == CALIBRATION and "process" not in one.tags):
            return False
        if one.held:
            return one.held.lapsed
        if one.word == "failed":
            return one.known.due is True or one.known.settings not in (None, self.settings)
        return one.word is None or (one.word == "pending" and (one.asked or not one.known.waits))

    def line(self) -> list[int]:
        """The runs that may be claimed, as they are claimed."""
        found = [number for number in NUMBERS if self.claimable(number)]
        return sorted(found, key=lambda number: ("prioritize" not in self.runs[number].tags, -number))

    def took(self, batch: str, one: Claimed, named: bool) -> None:
        run = self.runs[one.run.facts.number]
        earlier, before = run.held, (run.word, run.asked)
        if earlier:
            self.old.append((one.run.facts.number, earlier))
            before = earlier.before if run.word == "submitted" else before
        run.token += 1
        assert (one.token, one.taken_from) == (run.token, earlier.batch if earlier else None)
        if before[1] and not named:
            run.known = Known()
        left_out = set() if named else run.known.left_out(self.settings)
        assert set(one.left_out) == left_out
        run.held = Held(batch, one.token, named, before, left_out)
        run.says("submitted")

    def law(self, run: Model, state: str, product: str, made: set[str]) -> None:
        """What follows when a run is given back."""
        known = run.known
        for name in made:
            known.products.pop(name, None)
        if state == "done":
            run.says("done")
            run.known = Known()
            return
        run.says("pending" if state in ("waiting", "pending") else "failed")
        run.asked = False
        if state in ("failed", "damaged", "misconfigured"):
            permanent = None if state == "failed" else state
            count = known.products[product].count if product in known.products else 0
            count += state != "misconfigured"
            with_settings = self.settings if state == "misconfigured" else None
            known.products[product] = Failed(count, permanent, with_settings)
        known.failures += state in ("failed", "damaged")
        if run.word == "failed":
            known.due = False if state == "failed" and known.failures < GIVE_UP_AFTER else None
            current = any(one.settings == self.settings for one in known.products.values())
            known.settings = self.settings if current else None
        known.waits |= state == "waiting"

    # --- invocations ---------------------------------------------------------------------------------------

    def claimer(self, batch: str) -> Claimer:
        here = Owner.current()
        return Claimer(self.db, self.config, "online", batch, Owner("elsewhere", here.boot, here.pid, here.start))

    @rule(most=st.integers(1, 3))
    def claim_pending(self, most: int) -> None:
        self.batches += 1
        batch, line = f"b{self.batches}", self.line()[:most] if self.on else []
        bounded = self.config.claim.model_copy(update={"max_runs": most})
        config = self.config.model_copy(update={"claim": bounded})
        claimer = Claimer(self.db, config, "online", batch, self.claimer(batch).owner)
        taken = claimer.claim_pending(lambda _: True, lambda _: None, look(self.db, config, "online"))
        assert [one.run.facts.number for one in taken] == line
        for one in taken:
            self.took(batch, one, named=False)

    @rule(number=RUNS)
    def claim_named(self, number: int) -> None:
        self.batches += 1
        held = self.runs[number].held
        try:
            one = self.claimer(f"b{self.batches}").claim_named(f"{number:06d}")
        except RunDbError:
            assert held and not held.lapsed
            return
        assert not held or held.lapsed
        self.took(f"b{self.batches}", one, named=True)

    def some_held(self, which: int) -> int:
        held = [number for number, run in self.runs.items() if run.held]
        return held[which % len(held)]

    @held_ones
    @rule(which=WHICH, how=st.sampled_from(["lease", "death"]))
    def lapse(self, which: int, how: str) -> None:
        number = self.some_held(which)
        here = Owner.current()
        dead = Owner(here.host, here.boot, here.pid, here.start - 1).as_dict()
        change = {"lease_s": 0} if how == "lease" else {"owner": dead}
        self.write(number, {f"straxflow.online.claim.{key}": value for key, value in change.items()})
        claim(self.runs[number]).lapsed = True

    @held_ones
    @rule(which=WHICH)
    def renew(self, which: int) -> None:
        batch = claim(self.runs[self.some_held(which)]).batch
        mine = sum(run.held is not None and run.held.batch == batch for run in self.runs.values())
        assert self.claimer(batch).renew() == mine

    @held_ones
    @rule(
        which=WHICH,
        state=st.sampled_from(["done", "failed", "failed", "damaged", "misconfigured", "waiting", "pending"]),
        product=st.sampled_from(["raw", "sums"]),
    )
    def release(self, which: int, state: Any, product: str) -> None:
        number = self.some_held(which)
        run = self.runs[number]
        held, run.held = claim(run), None
        wanted = {"raw", "sums"} - held.left_out
        if product not in wanted:
            product, state = "raw", "incomplete" if state == "done" or not wanted else state
        made = wanted if state in ("done", "incomplete") else set()
        made |= {"raw"} if product == "sums" else set()
        outcome = {"waiting": "retry", "failed": "failed", "damaged": "damaged", "misconfigured": "misconfigured"}
        failures = {}
        if state in outcome:
            told: Any = outcome[state]
            failures[product] = Attempt(
                run=f"{number:06d}", product=product, step="process", batch=held.batch, owner={}, log="l",
                outcome=told, reason="words",
            )  # fmt: skip
        standing = Standing(state, "words", None, failures, frozenset(made))
        assert self.claimer(held.batch).release(self.site.doc(number)["_id"], held.token, standing)
        self.old.append((number, held))
        if run.word != "submitted":
            return  # a person said meanwhile what is to be
        if held.named and state != "done":
            run.word, run.asked = held.before
        else:
            self.law(run, state, product, made)

    @held_ones
    @rule(which=WHICH)
    def undo(self, which: int) -> None:
        self.undo_of(self.some_held(which))

    def undo_of(self, number: int) -> None:
        run = self.runs[number]
        held, run.held = claim(run), None
        assert self.claimer(held.batch).undo(self.site.doc(number)["_id"], held.token)
        self.old.append((number, held))
        if run.word == "submitted":
            run.word, run.asked = held.before

    @precondition(lambda self: bool(self.old))
    @rule(which=WHICH, state=st.sampled_from(["done", "failed", "pending"]))
    def come_late(self, which: int, state: Any) -> None:
        number, held = self.old[which % len(self.old)]
        before = self.site.dump_database()
        late, object_id = self.claimer(held.batch), self.site.doc(number)["_id"]
        assert not late.release(object_id, held.token, Standing(state))
        assert not late.undo(object_id, held.token)
        assert self.site.dump_database() == before

    @rule(number=RUNS)
    def let_the_pause_pass(self, number: int) -> None:
        known, past = self.runs[number].known, self.db.now() - timedelta(seconds=1)
        part = self.part(number)
        self.write(number, {f"straxflow.online.{name}": past for name in ("due", "wait_until") if name in part})
        known.due = known.due if known.due is None else True
        known.waits = False

    # --- people --------------------------------------------------------------------------------------------

    @rule(number=RUNS, how=st.sampled_from(["plain", "document", "word"]))
    def ask_by_hand(self, number: int, how: str) -> None:
        run = self.runs[number]
        found = self.site.doc(number).get("processing_status")
        if how == "word" and not isinstance(found, str):
            self.write(number, {"processing_status.status": "pending"})
            if run.word == "pending":
                return  # nothing changed
        else:
            moment = {"status": "pending", "time": self.db.now(), "host": "desk", "reason": None}
            self.write(number, {"processing_status": moment if how == "document" else "pending"})
        run.says("pending")

    @rule(number=RUNS, word=st.sampled_from(["retry", "mark pending", "mark done"]))
    def order(self, number: int, word: str) -> None:
        run = self.runs[number]
        orders = Orders(self.db, self.config, "online", "words", stop_dead=lambda _: self.end_dead(number))
        give: dict[str, Order] = {
            "retry": orders.retry, "mark pending": orders.mark_pending, "mark done": orders.mark_done
        }  # fmt: skip
        result = self.give(number, give[word])
        at_work = run.held is not None and not run.held.lapsed
        if result == "same":
            assert run.word == word.rpartition(" ")[2].replace("retry", "pending")
            return
        assert (result == "refused") == at_work
        if result == "changed":
            run.says("done" if word == "mark done" else "pending")
            run.known = Known()

    def end_dead(self, number: int) -> None:
        """As `straxflow` does before it obeys: the dead one's jobs are fenced by a later token."""
        self.claim_named(number)
        self.undo_of(number)

    @rule(number=RUNS, tag=TAGS)
    def turn_a_tag(self, number: int, tag: str) -> None:
        orders, tags = Orders(self.db, self.config, "online"), self.runs[number].tags
        give = orders.untag if tag in tags else orders.tag
        assert self.give(number, lambda run: give(run, tag)) == "changed"
        tags ^= {tag}

    @rule()
    def turn_the_switch(self) -> None:
        self.on = not self.on
        set_switch(self.db, self.config, "on" if self.on else "off")

    @rule()
    def change_the_settings(self) -> None:
        self.settings = 1 - self.settings

    def give(self, number: int, order: Order) -> str:
        (chosen,), _ = choose(self.db, self.config, parse_runs([str(number)], self.config))
        return order(chosen).result

    def write(self, number: int, changes: dict[str, Any]) -> None:
        if changes:
            self.site.runs.update_one({"number": number}, {"$set": changes})

    def part(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = self.site.doc(number).get("straxflow", {}).get("online", {})
        return found

    # --- what always holds ---------------------------------------------------------------------------------

    @invariant()
    def documents_say_the_same(self) -> None:
        for number, run in self.runs.items():
            part = self.part(number)
            there = part.get("claim")
            held = run.held and (run.held.batch, run.held.token)
            assert (there and (there["batch"], part["token"])) == held
            assert part.get("token", 0) == run.token
            assert self.site.status(number) == run.word
            assert part.get("failures", 0) == run.known.failures
            counts = {name: one["count"] for name, one in part.get("products_failed", {}).items()}
            assert counts == {name: one.count for name, one in run.known.products.items()}

    @invariant()
    def the_right_runs_are_next_and_the_others_say_why(self) -> None:
        line = self.line()
        told: list[str] = []
        found = [c.run.facts.number for c in candidates(self.db, self.config, "online", told.append)]
        assert found == line
        assert ["run 7" in " ".join(told), "run 8" in " ".join(told)] == [True, True]
        due = anything_due(self.db, self.config, "online")
        assert (due.run is not None, due.start) == (bool(line), bool(line) and self.on)
        gate = look(self.db, self.config, "online")
        assert bool(gate.shut) != self.on
        for number in NUMBERS:
            reasons = why_not(self.db, self.config, "online", f"{number:06d}", gate)
            assert (reasons == list(gate.shut)) == (number in line), (number, reasons)


@pytest.fixture
def machine(tmp_path: Path, rundb_server: RunDbServer, sshd: Sshd) -> Iterator[type[Machine]]:
    site = Site(tmp_path, rundb_server, sshd)
    site.configure(
        claim={"lease_s": 600},
        runs={"modes": ["background"]},
        failures={"backoff_s": 60, "give_up_after": GIVE_UP_AFTER, "fewer_products": {SUMS_GIVEN_UP_AFTER: ["raw"]}},
    )
    other = site.config.model_copy(update={"container": "another.sif"})
    with ExitStack() as stack:
        stack.callback(site.close)
        db = stack.enter_context(connect(site.config))
        yield type("OneSite", (Machine,), {"site": site, "configs": (site.config, other), "db": db})


@pytest.mark.slow
def test_any_order_of_events_keeps_every_promise(machine: type[Machine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
