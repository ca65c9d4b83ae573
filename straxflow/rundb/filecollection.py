"""The part of pymongo's Collection that straxflow uses, over the documents of a file.

What a query or an update means is told by mongomock, which gets the few documents that it is about.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from sqlite3 import Connection
from typing import TYPE_CHECKING, Any

import mongomock
from bson import ObjectId, json_util
from bson.codec_options import CodecOptions
from bson.json_util import RELAXED_JSON_OPTIONS
from mongomock.filtering import filter_applies
from pymongo import DeleteMany, DeleteOne, InsertOne, ReplaceOne, UpdateMany, UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError, WriteError
from pymongo.results import BulkWriteResult

from straxflow.errors import RunDbError
from straxflow.rundb.fileindex import Indexes

if TYPE_CHECKING:
    from straxflow.rundb.filedb import FileDb

Document = dict[str, Any]
Documents = dict[Any, Document]
Filter = Mapping[str, Any]
Known = Callable[[object], bool]
Look = Callable[[Known], list[Document]]
"""Gives the documents of runs that nobody has written to yet; it is told which ids are known."""

_BULK = {
    UpdateOne: "update_one",
    UpdateMany: "update_many",
    ReplaceOne: "replace_one",
    DeleteOne: "delete_one",
    DeleteMany: "delete_many",
}
_FEW = 500
_JSON = RELAXED_JSON_OPTIONS.with_options(tz_aware=True)


class FileCollection:
    """One collection of a file; threads may share it."""

    def __init__(self, database: FileDb, name: str) -> None:
        self.database = database
        self.name = name
        self.full_name = f"{name} in {database.file}"
        self.codec_options: CodecOptions[Document] = CodecOptions(tz_aware=True)
        self.look: Look | None = None
        self._seq = -1
        """The file's last change that is known here; -1: nothing was read yet."""
        self._documents: Documents = {}
        self._indexes = Indexes()
        self._stored: dict[Any, bool] = {}
        """Ids of the documents in the file, and whether they tell the end of their run."""
        self._found: Documents = {}
        """Documents of runs that are in no file yet, as they were found."""

    def find(self, filter: Filter | None = None, *args: Any, **kwargs: Any) -> FileCursor:
        """A cursor over the documents that match."""
        return FileCursor(self, filter, args, kwargs)

    def find_one(self, filter: Filter | None = None, *args: Any, **kwargs: Any) -> Document | None:
        """The first document that matches."""
        few = None if kwargs.get("sort") else 1
        found: Document | None = _memory(self._matching(filter, few)).find_one({}, *args, **kwargs)
        return found

    def count_documents(self, filter: Filter, **kwargs: Any) -> int:
        """How many documents match."""
        return len(self._matching(filter, kwargs.get("limit")))

    def estimated_document_count(self) -> int:
        """How many documents there are."""
        return self.count_documents({})

    def distinct(self, key: str, filter: Filter | None = None) -> list[Any]:
        """The different values of a field."""
        return list(_memory(self._matching(filter)).distinct(key))

    def aggregate(self, pipeline: Sequence[Filter], **kwargs: Any) -> Iterator[Document]:
        """The result of a pipeline."""
        first = pipeline[0].get("$match") if pipeline else None
        return iter(list(_memory(self._matching(first)).aggregate(pipeline)))

    def index_information(self) -> Document:
        """Indexes make themselves."""
        return {}

    def create_index(self, keys: Any, **kwargs: Any) -> str:
        """Nothing to do; but a unique one would promise what is not kept."""
        if kwargs.get("unique"):
            raise RunDbError(f"{self.full_name}: unique indexes are not kept; use `_id`")
        return str(keys)

    def insert_one(self, document: Document) -> Any:
        """Add a document."""
        with self._changing(_by_id([document.get("_id")])) as change:
            return change.insert(document)

    def insert_many(self, documents: Iterable[Document]) -> None:
        """Add documents, all or none."""
        rows = list(documents)
        with self._changing(_by_id([document.get("_id") for document in rows])) as change:
            for document in rows:
                change.insert(document)

    def update_one(self, filter: Filter, update: Any, upsert: bool = False, **kwargs: Any) -> Any:
        """Change the first document that matches."""
        with self._changing(_scope(filter, upsert)) as change:
            return change.one("update_one", filter, update, upsert=upsert, **kwargs)

    def replace_one(self, filter: Filter, replacement: Document, upsert: bool = False, **kwargs: Any) -> Any:
        """Put another in the place of the first document that matches."""
        with self._changing(_scope(filter, upsert)) as change:
            return change.one("replace_one", filter, replacement, upsert=upsert, **kwargs)

    def delete_one(self, filter: Filter, **kwargs: Any) -> Any:
        """Remove the first document that matches."""
        with self._changing(filter) as change:
            return change.one("delete_one", filter, **kwargs)

    def find_one_and_update(
        self, filter: Filter, update: Any, projection: Any = None, sort: Any = None, upsert: bool = False, **kwargs: Any
    ) -> Document | None:
        """Change the first document that matches, and give it."""
        with self._changing(_scope(filter, upsert)) as change:
            found: Document | None = change.one(
                "find_one_and_update", filter, update, sort=sort, upsert=upsert, projection=projection, **kwargs
            )
            return found

    def find_one_and_delete(
        self, filter: Filter, projection: Any = None, sort: Any = None, **kwargs: Any
    ) -> Document | None:
        """Remove the first document that matches, and give it."""
        with self._changing(filter) as change:
            found: Document | None = change.one(
                "find_one_and_delete", filter, sort=sort, projection=projection, **kwargs
            )
            return found

    def update_many(self, filter: Filter, update: Any, upsert: bool = False, **kwargs: Any) -> Any:
        """Change all documents that match, or none."""
        with self._changing(_scope(filter, upsert)) as change:
            return change.many("update_many", filter, update, upsert=upsert, **kwargs)

    def delete_many(self, filter: Filter, **kwargs: Any) -> Any:
        """Remove all documents that match, or none."""
        with self._changing(filter) as change:
            return change.many("delete_many", filter, **kwargs)

    def bulk_write(self, requests: Sequence[Any], ordered: bool = True, **kwargs: Any) -> BulkWriteResult:
        """Several changes at once, all or none."""
        matched = 0
        filters = [request._doc if isinstance(request, InsertOne) else request._filter for request in requests]
        with self._changing(_by_id([filter.get("_id") for filter in filters])) as change:
            for request, filter in zip(requests, filters, strict=True):
                if isinstance(request, InsertOne):
                    change.insert(request._doc)
                    continue
                if "_id" in filter:
                    filter = {"_id": filter["_id"], **filter}  # asked first: it tells most documents apart at once
                verb = _BULK[type(request)]
                what = () if verb.startswith("delete") else (request._doc,)
                options = {"upsert": True} if getattr(request, "_upsert", None) else {}
                try:
                    done = (change.many if verb.endswith("many") else change.one)(verb, filter, *what, **options)
                except WriteError as error:
                    raise BulkWriteError({"writeErrors": [{"errmsg": str(error)}]}) from error
                matched += getattr(done, "matched_count", 0)
        return BulkWriteResult({"nMatched": matched}, acknowledged=True)

    def _matching(self, filter: Filter | None, few: int | None = None) -> list[Document]:
        """The documents that match, as they stand now; the first `few` of them."""
        with self.database.lock:
            return _chosen(self._seen(filter), self._narrowed, filter or {}, few)

    def _narrowed(self, documents: Documents, filter: Filter) -> Iterable[Document]:
        ids = self._indexes.narrow(filter, documents) if documents is self._documents else None
        return documents.values() if ids is None else [documents[key] for key in ids]

    def _seen(self, filter: Filter | None) -> Documents:
        """The documents that a filter may match, by their ids, as they stand now."""
        with self.database.reading() as connection:
            documents = self._loaded(connection, filter)
        # never while the file is locked: it may take seconds
        if self.look and documents is self._documents and self._may_match_new(filter):
            self._put_found(self.look(lambda key: self._stored.get(key, False)))
        return documents

    @contextmanager
    def _changing(self, filter: Filter | None) -> Iterator[_Change]:
        """Collects changes, and writes them together at the end of the block."""
        with self.database.lock:
            if self.look and (self._seq < 0 or self._may_match_new(filter)):
                self._seen(filter)
            with self.database.writing() as connection:
                change = _Change(self._loaded(connection, filter), self._narrowed)
                yield change
                last = self._write(connection, change.changed)
            if change.changed and change.documents is self._documents:
                self._seq = last
                self._take(change.changed)

    def _loaded(self, connection: Connection, filter: Filter | None) -> Documents:
        """Bring what is known up to date; a process that asks for a few documents only reads no more than those."""
        if self._seq < 0 and (pin := _pinned(filter)):
            column, values = pin
            places = ", ".join("?" * len(values))
            query = f"select json from documents where collection = ? and {column} in ({places}) and json is not null"
            rows = [_document(text) for (text,) in connection.execute(query, (self.name, *values))]
            # a run that is in no file yet, or not whole, is looked for in the folders
            asked = [row for row in rows if _has_end(row) and _matches(_identity(filter), row)]
            if not self.look or len(asked) >= len(values):
                return {row["_id"]: row for row in rows}
        query = "select id, seq, json from documents where collection = ? and seq > ?"
        changed = connection.execute(query, (self.name, self._seq)).fetchall()
        self._take({json_util.loads(key): None if text is None else _document(text) for key, _, text in changed})
        self._seq = max([0, self._seq, *(seq for _, seq, _ in changed)])
        return self._documents

    def _take(self, changed: Mapping[Any, Document | None]) -> None:
        """Know documents as the file has them now; None: it has them no longer."""
        for key, document in changed.items():
            self._found.pop(key, None)
            self._stored.pop(key, None)
            if document is not None:
                self._stored[key] = _has_end(document)
            self._put(key, document)

    def _put(self, key: Any, document: Document | None) -> None:
        before = self._documents.pop(key, None)
        if document is None:
            self._indexes.drop(key, before)
        else:
            self._indexes.put(key, document, before)
            self._documents[key] = document

    def _may_match_new(self, filter: Filter | None) -> bool:
        """Whether a filter may match a run that is in no file yet: such a one has nothing of ours."""
        if not filter:
            return True
        for field, wanted in filter.items():
            if field.startswith("straxflow.") and _demands(wanted):
                return False
        pin = _pinned(filter)
        if not pin:
            return True
        named = _chosen(self._documents, self._narrowed, _identity(filter))
        return len([row for row in named if self._stored.get(row["_id"], False)]) < len(pin[1])

    def _put_found(self, found: list[Document]) -> None:
        """Know what was found, under what the file says of the same run."""
        there = {document["_id"] for document in found}
        for key in [key for key in self._found if key not in there]:
            del self._found[key]
            if key not in self._stored:
                self._put(key, None)
        for document in found:
            key = document["_id"]
            if self._found.get(key) is document or self._stored.get(key, False):
                continue
            # somebody wrote to the document of a run that was still being taken
            written = self._documents[key] if key in self._stored else {}
            self._put(key, document | {name: value for name, value in written.items() if value is not None})
            self._found[key] = document

    def _write(self, connection: Connection, changed: Documents) -> int:
        query = "select coalesce(max(seq), 0) from documents where collection = ?"
        (last,) = connection.execute(query, (self.name,)).fetchone()
        for key, document in changed.items():
            text = None if document is None else json_util.dumps(document, json_options=_JSON)
            row = (self.name, _text(key), last + 1, _number(document), text)
            connection.execute("replace into documents(collection, id, seq, number, json) values (?, ?, ?, ?, ?)", row)
        return int(last) + 1


class _Change:
    """Changes that are written together: the documents as they will be, None for those that go."""

    def __init__(self, documents: Documents, narrowed: Callable[[Documents, Filter], Iterable[Document]]) -> None:
        self.documents = documents
        self.changed: dict[Any, Any] = {}
        self._narrowed = narrowed

    def insert(self, document: Document) -> Any:
        memory = _memory()
        result = memory.insert_one(document)
        self._new(memory)
        return result

    def one(self, verb: str, filter: Filter, *what: Any, sort: Any = None, upsert: bool = False, **options: Any) -> Any:
        rows = self._matching(filter, None if sort else 1)
        if sort and rows:
            rows = [_memory(rows).find_one({}, sort=sort)]
        return self._apply(verb, rows, filter, what, upsert, options)

    def many(self, verb: str, filter: Filter, *what: Any, upsert: bool = False, **options: Any) -> Any:
        return self._apply(verb, self._matching(filter, None), filter, what, upsert, options)

    def _apply(
        self, verb: str, rows: list[Document], filter: Filter, what: tuple[Any, ...], upsert: bool, options: Document
    ) -> Any:
        memory = _memory(rows)
        if upsert:
            options = {**options, "upsert": True}
        try:
            result = getattr(memory, verb)(filter, *what, **options)
        except TypeError as error:
            # e.g. $inc of what is no number
            raise WriteError(f"the change is refused: {error}") from error
        if rows:
            after = {row["_id"]: row for row in memory.find({})}
            self.changed |= {row["_id"]: after.get(row["_id"]) for row in rows}
        elif upsert:
            self._new(memory)
        return result

    def _new(self, memory: Any) -> None:
        for row in memory.find({}):
            key = row["_id"]
            there = self.changed[key] if key in self.changed else self.documents.get(key)
            if there is not None:
                raise DuplicateKeyError(f"E11000 duplicate key error: _id {key!r}")
            self.changed[key] = row

    def _matching(self, filter: Filter, few: int | None) -> list[Document]:
        changed = [row for row in self.changed.values() if row is not None and _matches(filter, row)]
        if few and changed:
            return changed[:few]
        rows = _chosen(self.documents, self._narrowed, filter, None if self.changed else few)
        rows = changed + [row for row in rows if row["_id"] not in self.changed]
        return rows[:few] if few else rows


class FileCursor:
    """Documents that match, found when the first of them is asked for."""

    def __init__(self, collection: FileCollection, filter: Filter | None, args: Any, options: Document) -> None:
        self._collection, self._filter, self._args, self._options = collection, filter, args, options
        self._steps: list[tuple[str, tuple[Any, ...]]] = []
        self._rows: Iterator[Document] | None = None

    def sort(self, *args: Any) -> FileCursor:
        """In this order."""
        return self._then("sort", args)

    def limit(self, count: int) -> FileCursor:
        """At most so many."""
        return self._then("limit", (count,))

    def skip(self, count: int) -> FileCursor:
        """All but the first."""
        return self._then("skip", (count,))

    def batch_size(self, count: int) -> FileCursor:
        """Of no importance here."""
        return self

    def _then(self, verb: str, args: tuple[Any, ...]) -> FileCursor:
        self._steps.append((verb, args))
        return self

    def __iter__(self) -> FileCursor:
        return self

    def __next__(self) -> Document:
        if self._rows is None:
            cursor = _memory(self._collection._matching(self._filter)).find({}, *self._args, **self._options)
            for verb, args in self._steps:
                cursor = getattr(cursor, verb)(*args)
            self._rows = iter(cursor)
        return next(self._rows)

    def close(self) -> None:
        """Nothing is open."""


def _chosen(
    documents: Documents, narrowed: Callable[[Documents, Filter], Iterable[Document]], filter: Filter,
    few: int | None = None,
) -> list[Document]:  # fmt: skip
    found: list[Document] = []
    for row in narrowed(documents, filter):
        if _matches(filter, row):
            found.append(row)
            if len(found) == few:
                break
    return found


def _matches(filter: Filter, document: Document) -> bool:
    return bool(filter_applies(filter, document))  # type: ignore[no-untyped-call]  # mongomock has no types


def _memory(documents: Iterable[Document] = ()) -> Any:
    """A collection of mongomock with copies of these documents."""
    collection: Any = mongomock.MongoClient(tz_aware=True)["memory"]["documents"]
    if rows := list(documents):
        collection.insert_many(rows)
    return collection


def _scope(filter: Filter, upsert: bool) -> Filter | None:
    """What must be known to change what a filter matches: where a document may be added, all that it may collide
    with."""
    return filter if not upsert or "_id" in filter else None


def _by_id(keys: list[Any]) -> Filter | None:
    """The filter for the documents of these ids, one or several (`$in`) each; None: any may be meant."""
    ids = [one for key in keys for one in (key.get("$in", [key]) if isinstance(key, Mapping) else [key])]
    return {"_id": {"$in": ids}} if None not in ids else None


def _pinned(filter: Filter | None) -> tuple[str, list[object]] | None:
    """The column and the values of it by which a filter asks for a few documents."""
    key, number = (filter or {}).get("_id"), (filter or {}).get("number")
    if isinstance(key, Mapping) and list(key) == ["$in"] and len(key["$in"]) <= _FEW:
        return "id", [_text(one) for one in key["$in"]]
    if isinstance(key, (str, int, ObjectId)):
        return "id", [_text(key)]
    return ("number", [number]) if isinstance(number, int) else None


def _identity(filter: Filter | None) -> Document:
    """The part of a filter that tells which runs are meant."""
    return {field: value for field, value in (filter or {}).items() if field in ("_id", "number", "name", "experiment")}


def _demands(wanted: Any) -> bool:
    """Whether a condition never holds for a field that is not there."""
    if not isinstance(wanted, Mapping):
        return wanted is not None
    return wanted.get("$exists") is True or bool(wanted.keys() & {"$gt", "$gte", "$lt", "$lte", "$elemMatch"})


def _text(key: object) -> str:
    return json_util.dumps(key, json_options=_JSON)


def _document(text: str) -> Document:
    document: Document = json.loads(text, object_hook=_typed)
    return document


def _typed(fields: Document) -> Any:
    """What JSON has no word for is written as a mapping of one key; json_util looks at every mapping much longer."""
    if len(fields) == 1 and next(iter(fields))[:1] == "$":
        return json_util.object_hook(fields, _JSON)
    return fields


def _has_end(document: Document) -> bool:
    return document.get("end") is not None


def _number(document: Document | None) -> int | None:
    number = document.get("number") if document else None
    return number if isinstance(number, int) and abs(number) < 2**63 else None
