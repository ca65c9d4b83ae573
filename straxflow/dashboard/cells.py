"""The cells of the table of runs: how each step of a run stands, by its receipts and attempts in the state folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from straxflow.attempts import Attempt, AttemptFile
from straxflow.config import LIVE, Config
from straxflow.dashboard import logs
from straxflow.errors import StraxflowError
from straxflow.owner import Owner
from straxflow.progress import RELEASE, chain_of
from straxflow.receipts import Receipt, State, Stored, Transferred
from straxflow.runfiles import CachedFiles

DONE, RUNNING, FAILED, WAITING, STOPPED, TODO = "d", "r", "f", "w", "s", "."
"""A step's state in a cell: waiting will be tried again without counting as a failure, stopped was interrupted."""

AFTER = {
    "ok": DONE, "failed": FAILED, "damaged": FAILED, "misconfigured": FAILED, "killed": FAILED, "retry": WAITING,
}  # fmt: skip
TAIL_LINES = 8


@dataclass(frozen=True)
class Column:
    """A product (or `live`, or `release`) with its steps, in their order."""

    product: str
    steps: Sequence[str]


@dataclass(frozen=True)
class Trouble:
    """A step that failed or waits: why, and where its log is."""

    product: str
    step: str
    outcome: str
    reason: str
    attempt: str
    tail: str = ""


@dataclass(frozen=True)
class Progress:
    """The cells of a run: for each product of its mode, a letter for each step."""

    cells: Mapping[str, str] = field(default_factory=dict)
    troubles: Sequence[Trouble] = ()
    live_bytes: int = 0
    stored_bytes: int = 0
    problem: str | None = None


def columns(config: Config) -> list[Column]:
    """The columns of the table: the steps that this site does."""
    live = [LIVE] if "transfer" in config.steps else []
    release = [RELEASE] if RELEASE in config.steps else []
    found = [Column(name, [step for step, _ in chain_of(config, name)]) for name in [*live, *config.products, *release]]
    return [column for column in found if column.steps]


def progress(
    config: Config, state: State, run: str, mode: str | None, at_work: bool | None, files: CachedFiles | None = None
) -> Progress:
    """Where a run stands.

    Args:
        mode: of the run; None: read from its run.json.
        at_work: whether a live invocation holds it (None: not known); an open attempt of a run that nobody holds was
            interrupted.
    """
    if mode is None:
        try:
            mode = state.facts(run).mode
        except (StraxflowError, FileNotFoundError) as error:
            return Progress(problem=str(error))
    last: dict[tuple[str, str], AttemptFile] = {}
    for file in (files or CachedFiles()).attempts(state, run):
        # the release of a run is filed under `live`
        product = RELEASE if file.attempt.step == RELEASE else file.attempt.product
        last[product, file.attempt.step] = file
    chosen = {LIVE, RELEASE, *config.products_for(mode)}
    cells = {}
    troubles: list[Trouble] = []
    for column in columns(config):
        if column.product not in chosen:
            continue
        letters = ""
        for step, model in chain_of(config, column.product):
            tried = last.get((column.product, step))
            letter = _letter(receipt_path(state, run, column.product, model), tried, at_work)
            if tried and letter in (FAILED, WAITING):
                troubles.append(_trouble(state, tried))
            letters += letter
        cells[column.product] = letters
    problem = None
    live = stored = 0
    try:
        received = state.find(run, LIVE, Transferred)
        live = received.bytes if received else 0
        stored = sum(s.bytes for p in config.products_for(mode) if (s := state.find(run, p, Stored)))
    except StraxflowError as error:
        problem = str(error)
    return Progress(cells, troubles, live, stored, problem)


def receipt_path(state: State, run: str, product: str, model: type[Receipt]) -> Path:
    """Where the receipt of a step stands."""
    return state.released(run) if product == RELEASE else state.path(run, product, model)


def _letter(receipt: Path, tried: AttemptFile | None, at_work: bool | None) -> str:
    there = receipt.is_file()
    if tried is None:
        return DONE if there else TODO
    attempt = tried.attempt
    if attempt.ended is None:
        return STOPPED if at_work is False or _owner_is_dead(attempt) else RUNNING
    letter = AFTER.get(str(attempt.outcome), STOPPED)
    if letter == DONE and not there:
        return TODO  # it was set aside to be made again
    # a step that was made again and failed is a failure, though its earlier receipt may still be there
    return DONE if there and letter not in (FAILED, WAITING) else letter


def _owner_is_dead(attempt: Attempt) -> bool:
    try:
        return Owner.from_dict(attempt.owner).is_dead()
    except (KeyError, TypeError, ValueError):
        return False


def _trouble(state: State, file: AttemptFile) -> Trouble:
    attempt = file.attempt
    return Trouble(
        product=attempt.product,
        step=attempt.step,
        outcome=str(attempt.outcome),
        reason=attempt.reason or "",
        attempt=file.path.stem,
        tail=logs.last_lines(state, attempt, TAIL_LINES),
    )


class Watched:
    """Progress of many runs, each read again only when its folders changed."""

    def __init__(self, config: Config, state: State) -> None:
        self._config = config
        self._state = state
        self._files = CachedFiles()
        self._known: dict[str, tuple[object, Progress]] = {}

    def of(self, wanted: Mapping[str, tuple[str | None, bool | None]]) -> dict[str, Progress]:
        """Progress by run, for runs with their mode and whether somebody works on them; others are forgotten."""
        found: dict[str, tuple[object, Progress]] = {}
        for run, (mode, at_work) in wanted.items():
            signature = (mode, at_work, tuple(_times(self._state.run(run))))
            there = self._known.get(run)
            # an owner may die without changing a file
            if there and there[0] == signature and not any(RUNNING in c for c in there[1].cells.values()):
                found[run] = there
                continue
            found[run] = signature, progress(self._config, self._state, run, mode, at_work, self._files)
        for run in self._known.keys() - found.keys():
            self._files.forget(run)
        self._known = found
        return {run: value for run, (_, value) in found.items()}


def _times(folder: Path) -> Iterator[int]:
    """Change times of a run's folders: every receipt and attempt is written by a rename into one."""
    for path in (folder, *sorted(folder.glob("*/")), *sorted(folder.glob("*/attempts"))):
        try:
            yield path.stat().st_mtime_ns
        except OSError:
            yield 0
