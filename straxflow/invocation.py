"""One snakemake invocation as the run database sees it: it claims a batch, keeps its leases, gives the runs back.

Lives in snakemake's main process; the claim checkpoint, a child of it, acts in its name.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from straxflow import attempts, claimfile
from straxflow.alerts import facts_of, tell
from straxflow.batch import BATCH, KEPT, OWNER, Batch, BatchRun, batch_file, runs_in_targets
from straxflow.config import Config
from straxflow.corrections import obstacle
from straxflow.errors import RunDbError, StraxflowError, no_fault
from straxflow.fsio import bring_back, reap, write_atomic
from straxflow.hooks import Facts
from straxflow.interrupts import Interrupts
from straxflow.mirror import Hints, Mirror
from straxflow.orphans import stop_leftovers
from straxflow.owner import Owner
from straxflow.plan import Standing, available, final_receipts, receipts_of, standing
from straxflow.progress import ProductState, product_states
from straxflow.receipts import RunFacts, State, write
from straxflow.recheck import find_stale, set_aside_stale
from straxflow.rundb import history
from straxflow.rundb.asked import left_out_of
from straxflow.rundb.claims import Claimed, Claimer, wanted_products
from straxflow.rundb.client import RunDb, connect
from straxflow.rundb.gate import look
from straxflow.rundb.pending import Candidate, candidates, malformed_numbers, readable
from straxflow.rundb.rundoc import Run, parse, query_for
from straxflow.rundb.tunnel import Tunnel
from straxflow.slurm import cancel_jobs
from straxflow.takeover import Watchman

log = logging.getLogger(__name__)

LOOK_S = 10.0
"""How often the main process looks for runs that are finished, seconds."""


@dataclass
class Invocation:
    """The work of one invocation on the run database."""

    config: Config
    state: State
    campaign: str
    batch: str
    held_up: tuple[str, ...] = ()
    """Why nothing would have been claimed that nobody named; known after `claim_targets`."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _keeper: threading.Thread | None = None
    _tunnel: Tunnel | None = None
    _named: bool = False
    _given_back: dict[str, str] = field(default_factory=dict)
    _failed: list[Facts] = field(default_factory=list)
    _interrupts: Interrupts = field(default_factory=Interrupts)
    _mirror: Mirror | None = None
    _watchman: Watchman | None = None
    _batch: Batch | None = None
    _named_runs: tuple[str, ...] = ()

    def _claimer(self, db: RunDb) -> Claimer:
        owner = Owner.from_token(os.environ.get(OWNER, "")) or Owner.current()
        return Claimer(db, self.config, self.campaign, self.batch, owner)

    def available(self, run: str) -> bool:
        """Whether this site can do anything for a run."""
        return available(self.config, self.state, run)

    def preview(self, problem: Callable[[str], None]) -> list[Candidate]:
        """The runs that an invocation would claim now; reads only."""
        with connect(self.config) as db:
            gate = look(db, self.config, self.campaign)
            for held in gate.held():
                problem(held)
            most = self.config.claim.max_runs if gate.room is None else min(self.config.claim.max_runs, gate.room)
            chosen: list[Candidate] = []
            for candidate in candidates(db, self.config, self.campaign, problem, gate, most):
                if reason := obstacle(self.config, self.state, db, candidate.run.facts):
                    problem(f"run {candidate.run.id}: waits: {reason}")
                elif self.available(candidate.run.id):
                    chosen.append(candidate)
                if len(chosen) >= most:
                    break
        for run in (one.run for one in chosen):
            try:
                messages, _ = find_stale(self.config, self.state, run.id)
            except StraxflowError as error:
                messages = [str(error)]
            for message in messages:
                problem(f"run {run.id}: {message} (jobs that come of it are not shown)")
        return chosen

    def left_out(self, run: Run) -> dict[str, str]:
        """Products that would not be made of a run if it were claimed now, each with the reason."""
        return left_out_of(run, self.config, self.campaign)

    def claim_batch(self, output: Path) -> Batch:
        """Claim pending runs and write the batch file and the claim files."""
        if os.environ.get(KEPT) != self.batch:
            raise StraxflowError(
                "nobody would renew the claims: snakemake was started without its hooks; leave --no-hooks out"
            )
        problems: list[str] = []
        with connect(self.config) as db:
            problems += malformed_numbers(db)
            gate = look(db, self.config, self.campaign)
            problems += gate.held()
            claimed = self._claimer(db).claim_pending(self.available, problems.append, gate)
        self._stop_dead(claimed)
        claimed = self._without_waiting(claimed, problems)
        taken_up = []
        for one in claimed:
            try:
                self._take_up(one)
                taken_up.append(one)
            except (StraxflowError, OSError) as error:
                problems.append(f"run {one.run.id}: claimed but left alone: {error}")
                # by its receipts it may look done, though they could not be checked
                stands = _by(error)
                with contextlib.suppress(RunDbError), connect(self.config) as db:
                    released = self._claimer(db).release(one.run.object_id, one.token, stands)
                    if released and released.status == "failed":
                        tell(self.config, self.state, [facts_of(one.run, stands, released, self.batch)])
        runs = [
            BatchRun(
                run=c.run.id,
                number=c.run.facts.number,
                mode=c.run.facts.mode,
                token=c.token,
                products=c.products,
                left_out=list(c.left_out),
            )
            for c in taken_up
        ]
        batch = Batch(batch=self.batch, campaign=self.campaign, runs=runs, problems=problems)
        output.parent.mkdir(parents=True, exist_ok=True)
        reap(output.parent)
        write_atomic(output, batch.model_dump_json(indent=1).encode())
        return batch

    def _without_waiting(self, claimed: list[Claimed], problems: list[str]) -> list[Claimed]:
        """Give back the runs that cannot be worked on yet; their documents say what they wait for."""
        if self.config.reprocessing is None:
            return claimed
        ready = []
        with connect(self.config) as db:
            for one in claimed:
                if reason := obstacle(self.config, self.state, db, one.run.facts):
                    problems.append(f"run {one.run.id}: waits: {reason}")
                    self._claimer(db).release(one.run.object_id, one.token, Standing("waiting", reason))
                else:
                    ready.append(one)
        return ready

    def claim_targets(self, targets: Iterable[str]) -> list[str]:
        """Claim the runs of explicitly named targets, all or none.

        Raises:
            RunDbError: naming the run and who works on it, before any job.
        """
        runs = runs_in_targets(targets)
        if not runs:
            return []
        with connect(self.config) as db:
            self.held_up = look(db, self.config, self.campaign).shut
            claimer = self._claimer(db)
            claimed: list[Claimed] = []
            try:
                for run in runs:
                    claimed.append(claimer.claim_named(run))
                    self._named = True
                    if reason := obstacle(self.config, self.state, db, claimed[-1].run.facts):
                        raise RunDbError(f"run {run}: {reason}")
            except RunDbError:
                for one in claimed:
                    claimer.undo(one.run.object_id, one.token)
                raise
        self._stop_dead(claimed)
        for one in claimed:
            self._take_up(one, named=True)
        self._named_runs = tuple(runs)
        return runs

    def _stop_dead(self, claimed: list[Claimed]) -> None:
        """Stop what dead invocations left running, before their runs are worked on."""
        for batch in sorted({one.taken_from for one in claimed if one.taken_from}):
            runs = [one.run.id for one in claimed if one.taken_from == batch]
            log.warning("taken over from invocation %s, which is dead or silent: run %s", batch, ", ".join(runs))
            stop_leftovers(batch, *{owner for run in runs if (owner := self._claimant(batch, run))})

    def _claimant(self, batch: str, run: str) -> Owner | None:
        """The main process of a run's last claim, if it was this batch's."""
        try:
            claim = claimfile.read(self.state, run)
            return Owner.from_dict(claim.owner) if claim and claim.batch == batch else None
        except (StraxflowError, KeyError, ValueError):
            return None

    def _take_up(self, one: Claimed, named: bool = False) -> None:
        owner = Owner.from_token(os.environ.get(OWNER, "")) or Owner.current()
        run = one.run.id
        claim = claimfile.ClaimFile(
            run=run, token=one.token, batch=self.batch, owner=owner.as_dict(), left_out=dict(one.left_out)
        )
        claimfile.write(self.state, claim)
        if early := bring_back(self.state.run(run), claimfile.path(self.state, run)):
            log.warning("run %s: a clock was stepped back: %d receipts had times of the future", run, len(early))
        self._note_facts(one.run.facts)
        attempts.complete_open(self.state, run, one.taken_from)
        for where, _, _ in os.walk(self.state.run(run)):
            reap(Path(where))
        if not named:
            for message in set_aside_stale(self.config, self.state, run):
                log.warning("run %s: %s", run, message)

    def _note_facts(self, facts: RunFacts) -> None:
        """Bring run.json in line with the document that was just claimed."""
        file = self.state.run(facts.run) / RunFacts.name
        new = facts.model_dump(exclude={"made"})
        try:
            old = self.state.facts(facts.run).model_dump(exclude={"made"})
        except (FileNotFoundError, StraxflowError):
            old = {}
        if new == old:
            return
        changed = [f"{key}: {old[key]!r} became {new[key]!r}" for key in old if old[key] != new[key]]
        if changed:
            log.warning("run %s: its document changed since run.json was written: %s", facts.run, "; ".join(changed))
        write(file, facts)

    def check_batch_is_new(self) -> None:
        """A batch is worked on once; its id may be given again only to look at it.

        Raises:
            StraxflowError: if it was worked on before.
        """
        if (self.state.folder / batch_file(self.batch)).exists():
            raise StraxflowError(
                f"batch {self.batch} ({BATCH}) was worked on before; unset {BATCH}: a given one is for --report and "
                "--summary"
            )

    def open_tunnel(self) -> None:
        """Open the tunnel to the run database, if there is one, for this process and its local jobs."""
        if self.config.rundb.tunnel:
            self._tunnel = Tunnel(self.config.rundb.tunnel, self.config.rundb.timeout_s)
            self._tunnel.open()
            self._tunnel.share()

    def keep(self) -> None:
        """Renew the leases from a thread, every third of the lease, until `finish`."""
        os.environ[KEPT] = self.batch
        self._keeper = threading.Thread(target=self._renew_loop, name="straxflow-leases", daemon=True)
        self._keeper.start()
        self._watchman = Watchman(self.state, self.batch, self._runs_at_work)
        self._watchman.start()

    def _runs_at_work(self) -> list[str]:
        """Runs that this invocation has claimed and not given back."""
        batch = self._claimed()
        runs = [one.run for one in batch.runs] if batch else []
        return [run for run in (*self._named_runs, *runs) if run not in self._given_back]

    def _claimed(self) -> Batch | None:
        """The batch file; None while nothing is claimed, or if there are only targets that a person named."""
        if self._batch is None:
            with contextlib.suppress(OSError):
                text = (self.state.folder / batch_file(self.batch)).read_text(encoding="utf-8")
                self._batch = Batch.model_validate_json(text)
        return self._batch

    def tell(self) -> logging.Handler:
        """Tell the run database how the work goes on, until `finish`; gives what takes hints from snakemake's log."""
        self._mirror = Mirror(self.config, self.state, self.campaign, self.batch)
        self._mirror.start()
        return Hints(self._mirror)

    def note_interrupts(self) -> None:
        """Remember Ctrl-C and SIGTERM: what an interrupted invocation did not come to need not wait."""
        self._interrupts.watch()

    def _renew_loop(self) -> None:
        renewed = time.monotonic()
        while not self._stop.wait(min(self.config.claim.lease_s / 3, LOOK_S)):
            # whatever happens, the leases of live work must not lapse; each bridges a database that is away for a while
            try:
                if time.monotonic() - renewed >= self.config.claim.lease_s / 3:
                    with connect(self.config) as db:
                        self._claimer(db).renew()
                    renewed = time.monotonic()
            except Exception as error:
                log.warning("leases not renewed: %s: %s", type(error).__name__, error)
            try:
                if finished := self._finished_runs():
                    with connect(self.config) as db:
                        self._give_back(db, finished)
            except Exception as error:
                log.warning("finished runs not given back yet: %s: %s", type(error).__name__, error)

    def _finished_runs(self) -> list[str]:
        """Runs of the batch whose last receipts were all made under the present claim: nothing is left to do."""
        batch = self._claimed()
        if batch is None:
            return []
        finished = []
        for one in batch.runs:
            if one.run in self._given_back:
                continue
            extent = (one.products, one.left_out)
            all_ = [self.state.folder / r for r in receipts_of(self.config, one.run, one.mode, *extent)]
            last = [self.state.folder / r for r in final_receipts(self.config, one.run, one.mode, *extent)]
            if all(p.is_file() for p in all_) and all(p.stat().st_mtime > batch.made.timestamp() for p in last):
                finished.append(one.run)
        return finished

    def finish(self, patience_s: float = 30) -> dict[str, str]:
        """Give all runs of this batch back, as done, failed or pending by their receipts; state by run."""
        self._stop.set()
        if self._watchman:
            self._watchman.stop()
        if self._mirror:
            self._mirror.stop()
        # where the database was away from the start there is nothing to wait for
        holds = self._named or (self.state.folder / batch_file(self.batch)).exists()
        deadline = time.monotonic() + (patience_s if holds else 0)
        while True:
            try:
                cancel_jobs(self.batch)
                with connect(self.config) as db:
                    self._give_back(db)
                    history.prune(db, self.config, self.campaign, self._given_back)
                break
            except RunDbError as error:
                if time.monotonic() > deadline:
                    log.warning("claims not released: %s; they lapse by themselves, the receipts are safe", error)
                    break
                time.sleep(1)
        if self._tunnel:
            self._tunnel.close()
        tell(self.config, self.state, self._failed)
        return self._given_back

    def _give_back(self, db: RunDb, only: Collection[str] | None = None) -> None:
        """Release the runs that this batch holds (of these, if given) with the state that their receipts tell."""
        claimer = self._claimer(db)
        for run in readable(claimer.held(), self.config, self.campaign, log.warning):
            part = run.campaign(self.campaign)
            if only is not None and run.id not in only:
                continue
            try:
                stands = self._standing(run, int(part["token"]))
            except (StraxflowError, OSError) as error:
                stands = _by(error)
            products = self._products(run)
            released = claimer.release(run.object_id, int(part["token"]), stands, products)
            if released:
                self._given_back[run.id] = stands.state
            if released and released.status == "failed":
                self._failed.append(facts_of(run, stands, released, self.batch))
            history.record(db, self.config, self.campaign, attempts.all_of(self.state, run.id))

    def _products(self, run: Run) -> dict[str, ProductState]:
        """How the products of a run stand after this invocation's work on it."""
        try:
            claim = claimfile.read(self.state, run.id)
        except StraxflowError:
            claim = None
        if claim is None or claim.batch != self.batch:
            return {}  # never taken up
        return product_states(
            self.config, self.state, run.id, run.facts.mode, since=claim.made, left_out=claim.left_out
        )

    def _standing(self, run: Run, token: int) -> Standing:
        """How a run stands after this invocation's work on it."""
        attempts.complete_open(self.state, run.id, self.batch, self._interrupts.seen)
        claim = claimfile.read(self.state, run.id)
        if claim is None or claim.token != token:
            return Standing("pending")  # claimed, but never taken up
        products = wanted_products(run.campaign(self.campaign))
        stands = standing(
            self.config, self.state, run.id, run.facts.mode, claim.made, products=products, left_out=claim.left_out
        )
        if stands.state != "pending" or self._interrupts.seen:
            return stands
        tried = [f.attempt for f in attempts.all_of(self.state, run.id) if f.attempt.batch == self.batch]
        if not tried:
            return Standing("waiting", "none of its jobs could be started; see snakemake's own log")
        # by whom, is not known here: it may well happen again, so not at once, and with the reason
        stopped = [one for one in attempts.deciding(tried).values() if one.outcome == "stopped"]
        if stopped:
            reason = "; ".join(f"{one.step} of {one.product}: {one.reason}" for one in stopped)
            return replace(stands, state="waiting", reason=reason, log=str(self.state.folder / stopped[0].log))
        return stands

    def write_facts(self, run: str, output: Path) -> None:
        """Write run.json from the run document.

        Raises:
            RunDbError: if there is no such document, or it is malformed.
        """
        write(output, self.facts(run))

    def facts(self, run: str) -> RunFacts:
        """Acquisition facts of a run, from its document."""
        with connect(self.config) as db:
            document = db.runs.find_one(query_for(run, self.config))
        if document is None:
            raise RunDbError(f"run {run}: there is no run document of it")
        return parse(document, self.config, self.campaign).facts


def _by(error: Exception) -> Standing:
    """How a run stands whose receipts or attempts could not be read or written."""
    return Standing("waiting" if no_fault(error) else "failed", str(error))
