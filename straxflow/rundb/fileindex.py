"""Indexes over documents in memory: which of them a filter may match. Each is made when a filter first asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from bson import ObjectId

Document = dict[str, Any]
Ids = set[Any]
_SCALARS = (str, int, float, bool, datetime, ObjectId, type(None))
_THERE = object()
"""Stands for any value."""
_NOTHING: Ids = set()
_DEMANDS = {"$gt", "$gte", "$lt", "$lte", "$elemMatch", "$regex"}
"""Operators that match nothing where there is no such field."""


class Indexes:
    """By path of a field and its value, the ids of documents."""

    def __init__(self) -> None:
        self._by_path: dict[str, dict[Any, Ids]] = {}

    def put(self, key: Any, document: Document, before: Document | None) -> None:
        """Take a document in, in the place of its earlier state."""
        self.drop(key, before)
        for path, index in self._by_path.items():
            for value in _values(document, path):
                index.setdefault(value, set()).add(key)

    def drop(self, key: Any, before: Document | None) -> None:
        """Forget a document."""
        if before is not None:
            for path, index in self._by_path.items():
                for value in _values(before, path):
                    index[value].discard(key)

    def narrow(self, filter: Mapping[str, Any], documents: Mapping[Any, Document]) -> Ids | None:
        """The ids of all documents that a filter may match, and of some that it does not; None: any of them."""
        known = [c for f, w in filter.items() if (c := self._condition(f, w, documents)) is not None]
        if not known:
            # that a field is there says less, so it is asked for only where nothing else is known
            demanded = [f for f, w in filter.items() if isinstance(w, Mapping) and w.keys() & _DEMANDS]
            known = [self._of(field, documents).get(_THERE, _NOTHING) for field in demanded if field[:1] != "$"]
        return min(known, key=len, default=None)

    def _condition(self, field: str, wanted: Any, documents: Mapping[Any, Document]) -> Ids | None:
        if field == "$or":
            parts = [self.narrow(branch, documents) for branch in wanted]
            return None if None in parts else _NOTHING.union(*(part for part in parts if part))
        if field == "$and":
            known = [part for branch in wanted if (part := self.narrow(branch, documents)) is not None]
            return min(known, key=len, default=None)
        if field.startswith("$"):
            return None
        if field == "_id" and isinstance(wanted, (str, int, ObjectId)):
            return {wanted} & documents.keys()
        if isinstance(wanted, _SCALARS):
            return self._of(field, documents).get(wanted, _NOTHING)
        if isinstance(wanted, Mapping):
            if wanted.get("$exists") is True:
                return self._of(field, documents).get(_THERE, _NOTHING)
            choices = wanted.get("$in")
            if isinstance(choices, (list, tuple)) and all(isinstance(choice, _SCALARS) for choice in choices):
                if field == "_id":
                    return set(choices) & documents.keys()
                index = self._of(field, documents)
                return _NOTHING.union(*(index.get(choice, _NOTHING) for choice in choices))
        return None

    def _of(self, path: str, documents: Mapping[Any, Document]) -> dict[Any, Ids]:
        if path not in self._by_path:
            index: dict[Any, Ids] = {}
            for key, document in documents.items():
                for value in _values(document, path):
                    index.setdefault(value, set()).add(key)
            self._by_path[path] = index
        return self._by_path[path]


def _values(document: Document, path: str) -> Ids:
    """What a condition on a path may be compared with: a list stands for its elements, what is not there for None."""
    found = set(_leaves(document, path.split(".")))
    return found | {_THERE} if found - {None} or _is_there(document, path) else found


def _leaves(value: Any, names: list[str]) -> Iterator[Any]:
    if isinstance(value, list):
        if not value:
            yield None
        for element in value:
            yield from _leaves(element, names)
        if names and names[0].isdigit() and int(names[0]) < len(value):
            yield from _leaves(value[int(names[0])], names[1:])
    elif not names:
        if isinstance(value, _SCALARS):
            yield value
        else:
            yield _THERE
    elif isinstance(value, dict) and names[0] in value:
        yield from _leaves(value[names[0]], names[1:])
    else:
        yield None


def _is_there(document: Document, path: str) -> bool:
    """Whether a field is there though it is null, or an empty list."""
    value: Any = document
    for name in path.split("."):
        if isinstance(value, list):
            return True
        if not isinstance(value, dict) or name not in value:
            return False
        value = value[name]
    return True
