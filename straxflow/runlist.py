"""Runs as a person names them: 932, 000932, 900-950, @file of such words, run ids and names. The one parser of them."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from straxflow.config import Config
from straxflow.errors import StraxflowError, UsageError
from straxflow.receipts import State
from straxflow.rundb.client import Document
from straxflow.rundb.rundoc import HIGHEST, Malformed, query_for, told_by_more_than_number

FORMS = "a number (932), a run id, a range (900-950), or @FILE with one of these a line"


@dataclass(frozen=True)
class Word:
    """What one word names: the runs from `low` to `high`, or the one of a name."""

    text: str
    low: int = 0
    high: int = -1
    name: str | None = None
    id: str | None = None
    """Of a single run, where the word tells it."""
    key: Document | None = None
    """The query for it, where a number alone is no name: with several experiments."""


@dataclass(frozen=True)
class RunList:
    """The runs that were named; `ranges` (first and last number, both included) are sorted and do not touch."""

    words: tuple[Word, ...]
    ranges: tuple[tuple[int, int], ...]
    names: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many runs there are if none is missing."""
        return sum(high - low + 1 for low, high in self.ranges) + len(self.names)

    def query(self) -> Document:
        """The query that finds their run documents; to be joined with others by `$and`."""
        single = [low for low, high in self.ranges if low == high]
        choices: list[Document] = [{"number": {"$gte": a, "$lte": b}} for a, b in self.ranges if a < b]
        if single or not (choices or self.names):
            choices.append({"number": {"$in": single}})
        if plain := [word.name for word in self.words if word.name is not None and word.key is None]:
            choices.append({"name": {"$in": plain}})
        choices += [word.key for word in self.words if word.key is not None]
        return choices[0] if len(choices) == 1 else {"$or": choices}

    def contains(self, number: int, name: str | None = None) -> bool:
        """Whether a run of this number, or of this name (with several experiments: of this id), was named."""
        place = bisect_right(self.ranges, (number, HIGHEST + 1)) - 1
        return name in self.names or (place >= 0 and number <= self.ranges[place][1])

    def ids(self, config: Config, state: State) -> list[str]:
        """The ids of those that have a folder in the state folder."""
        return [run for run in state.all_runs() if self._has(run, config, state)]

    def single(self) -> list[str]:
        """The ids of runs named one by one, as far as the words tell them; they need not exist."""
        return list(dict.fromkeys(word.id for word in self.words if word.id is not None))

    def unmatched(self, numbers: Collection[int], names: Collection[str] = ()) -> list[str]:
        """The words to which none of these runs belongs, as they were written."""
        there = sorted(numbers)

        def found(word: Word) -> bool:
            if word.name is not None:
                return word.name in names
            place = bisect_right(there, word.high) - 1
            return place >= 0 and there[place] >= word.low

        return [word.text for word in self.words if not found(word)]

    def _has(self, run: str, config: Config, state: State) -> bool:
        try:
            query = query_for(run, config)
            # an id that holds no number tells it in its run.json
            number = query["number"] if "number" in query or run in self.names else state.facts(run).number
        except KeyError:
            return True
        except (StraxflowError, OSError):
            return False
        return self.contains(number, run)


def parse_runs(words: Sequence[str], config: Config) -> RunList:
    """Read words that name runs; nothing is looked up, so they need not exist.

    Raises:
        UsageError: naming the word that is none, with what is allowed and what was probably meant.
    """
    found = tuple(one for word in words for one in _read(word, config))
    names = dict.fromkeys(word.name for word in found if word.name is not None)
    return RunList(found, _joined((w.low, w.high) for w in found if w.name is None), tuple(names))


def _read(word: str, config: Config) -> Iterator[Word]:
    if not word.startswith("@"):
        yield _one(word, config)
        return
    try:
        lines = Path(word[1:]).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{word}: the list of runs cannot be read: {reason}") from None
    stripped = [line.partition("#")[0].strip() for line in lines]
    if not any(stripped):
        raise UsageError(f"{word}: names no run; expected a run a line")
    for number, text in enumerate(stripped, start=1):
        try:
            if text.startswith("@"):
                raise UsageError(f"{text!r}: a list of runs in a list of runs")
            if text:
                yield _one(text, config)
        except UsageError as error:
            raise UsageError(f"{word[1:]}, line {number}: {error}") from None


def _one(word: str, config: Config) -> Word:
    digits = re.fullmatch(r"[0-9]+", word)
    # what begins with 0 was written as a run id, so it must be one
    if digits and (word == "0" or word[0] != "0"):
        one = _numbered(word, word, word)
        known = not told_by_more_than_number(config)
        made = config.run_id.format(number=one.low, experiment=config.experiment) if known else None
        return replace(one, id=made)
    if both := re.fullmatch(r"([0-9]+)-([0-9]+)", word):
        return _numbered(word, both[1], both[2])
    try:
        query = query_for(word, config)
    except Malformed as error:
        hint = "" if "did you mean" in str(error) else f"; expected {FORMS}"
        raise UsageError(f"{error}{hint}") from None
    if "experiment" in query:
        return Word(word, name=word, id=word, key=query)
    if "number" in query:
        return Word(word, query["number"], query["number"], id=word)
    return Word(word, name=query["name"], id=word)


def _numbered(word: str, first: str, last: str) -> Word:
    # int() refuses thousands of digits
    if max(len(first.lstrip("0")), len(last.lstrip("0"))) > len(str(HIGHEST)) or max(int(first), int(last)) > HIGHEST:
        raise UsageError(f"{word[:40]!r}: run numbers go up to {HIGHEST}")
    low, high = int(first), int(last)
    if low > high:
        raise UsageError(f"{word!r}: the range ends before it begins; did you mean '{high}-{low}'?")
    return Word(word, low, high)


def _joined(ranges: Iterator[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    joined: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return tuple(joined)
