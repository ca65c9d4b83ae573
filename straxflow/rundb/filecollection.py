"""The part of pymongo's Collection that straxflow uses, over the documents of a file.

What a query or an update means is told by mongomock, over a copy of the documents in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from sqlite3 import Connection
from typing import TYPE_CHECKING, Any

import mongomock
from bson import ObjectId, json_util
from bson.codec_options import CodecOptions
from bson.json_util import RELAXED_JSON_OPTIONS
from pymongo import DeleteMany, DeleteOne, InsertOne, ReplaceOne, UpdateMany, UpdateOne

from straxflow.errors import RunDbError

if TYPE_CHECKING:
    from straxflow.rundb.filedb import FileDb

Document = dict[str, Any]
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
        self._forget()

    def _forget(self) -> None:
        self._memory = _memory()
        self._seq = -1
        """The file's last change that memory knows; -1: nothing was read yet."""
        self._stored: dict[Any, bool] = {}
        """Ids of the documents in the file, and whether they tell the end of their run."""
        self._found: dict[Any, Document] = {}
        """Documents of runs that are in no file yet, as they were found."""

    def find(self, filter: Filter | None = None, *args: Any, **kwargs: Any) -> FileCursor:
        """A cursor over the documents that match."""
        return FileCursor(self, filter, args, kwargs)

    def find_one(self, filter: Filter | None = None, *args: Any, **kwargs: Any) -> Document | None:
        """The first document that matches."""
        found: Document | None = self._read("find_one", filter, filter, *args, **kwargs)
        return found

    def count_documents(self, filter: Filter, **kwargs: Any) -> int:
        """How many documents match."""
        return int(self._read("count_documents", filter, filter, **kwargs))

    def estimated_document_count(self) -> int:
        """How many documents there are."""
        return self.count_documents({})

    def distinct(self, key: str, filter: Filter | None = None) -> list[Any]:
        """The different values of a field."""
        return list(self._read("distinct", filter, key, filter))

    def aggregate(self, pipeline: list[Filter], **kwargs: Any) -> Iterator[Document]:
        """The result of a pipeline."""
        first = pipeline[0].get("$match") if pipeline else None
        with self.database.lock:
            return iter(list(self._seen(first).aggregate(pipeline)))

    def index_information(self) -> Document:
        """No indexes: all documents are in memory."""
        return {}

    def create_index(self, keys: Any, **kwargs: Any) -> str:
        """Nothing to do; but a unique one would promise what is not kept."""
        if kwargs.get("unique"):
            raise RunDbError(f"{self.full_name}: unique indexes are not kept; use `_id`")
        return str(keys)

    def insert_one(self, document: Document) -> Any:
        """Add a document."""
        with self._writing(None) as (memory, changed):
            result = memory.insert_one(document)
            changed.append(result.inserted_id)
            return result

    def insert_many(self, documents: Iterable[Document]) -> Any:
        """Add documents, all or none."""
        with self._writing(None) as (memory, changed):
            result = memory.insert_many(documents)
            changed += result.inserted_ids
            return result

    def update_one(self, filter: Filter, update: Any, upsert: bool = False, **kwargs: Any) -> Any:
        """Change the first document that matches."""
        return self._change_one("update_one", filter, (update,), None, upsert, kwargs)

    def replace_one(self, filter: Filter, replacement: Document, upsert: bool = False, **kwargs: Any) -> Any:
        """Put another in the place of the first document that matches."""
        return self._change_one("replace_one", filter, (replacement,), None, upsert, kwargs)

    def delete_one(self, filter: Filter, **kwargs: Any) -> Any:
        """Remove the first document that matches."""
        return self._change_one("delete_one", filter, (), None, False, kwargs)

    def find_one_and_update(
        self, filter: Filter, update: Any, projection: Any = None, sort: Any = None, upsert: bool = False, **kwargs: Any
    ) -> Document | None:
        """Change the first document that matches, and give it."""
        options = {"projection": projection, **kwargs}
        found: Document | None = self._change_one("find_one_and_update", filter, (update,), sort, upsert, options)
        return found

    def find_one_and_delete(
        self, filter: Filter, projection: Any = None, sort: Any = None, **kwargs: Any
    ) -> Document | None:
        """Remove the first document that matches, and give it."""
        options = {"projection": projection, **kwargs}
        found: Document | None = self._change_one("find_one_and_delete", filter, (), sort, False, options)
        return found

    def update_many(self, filter: Filter, update: Any, upsert: bool = False, **kwargs: Any) -> Any:
        """Change all documents that match, or none."""
        with self._writing(None if upsert else filter) as (memory, changed):
            changed += [document["_id"] for document in memory.find(filter, {"_id": 1})]
            result = memory.update_many(filter, update, upsert=upsert, **kwargs)
            if result.upserted_id is not None:
                changed.append(result.upserted_id)
            return result

    def delete_many(self, filter: Filter, **kwargs: Any) -> Any:
        """Remove all documents that match, or none."""
        with self._writing(filter) as (memory, changed):
            changed += [document["_id"] for document in memory.find(filter, {"_id": 1})]
            return memory.delete_many(filter, **kwargs)

    def bulk_write(self, requests: Sequence[Any], ordered: bool = True, **kwargs: Any) -> None:
        """Several changes at once, all or none."""
        filters = [request._doc if isinstance(request, InsertOne) else request._filter for request in requests]
        keys = [filter.get("_id") for filter in filters]
        with self._writing({"_id": {"$in": keys}} if None not in keys else None) as (memory, changed):
            for request, filter in zip(requests, filters, strict=True):
                if isinstance(request, InsertOne):
                    changed.append(memory.insert_one(request._doc).inserted_id)
                    continue
                verb = _BULK[type(request)]
                chosen = list(memory.find(filter, {"_id": 1}).limit(0 if verb.endswith("many") else 1))
                changed += [document["_id"] for document in chosen]
                what = () if verb.startswith("delete") else (request._doc,)
                options = {"upsert": True} if getattr(request, "_upsert", None) else {}
                result = getattr(memory, verb)(filter, *what, **options)
                if options and result.upserted_id is not None:
                    changed.append(result.upserted_id)

    def _change_one(
        self, verb: str, filter: Filter, what: tuple[Any, ...], sort: Any, upsert: bool, options: Document
    ) -> Any:
        with self._writing(filter if not upsert or "_id" in filter else None) as (memory, changed):
            chosen = memory.find_one(filter, {"_id": 1}, sort=sort)
            if chosen is not None:
                changed.append(chosen["_id"])
                return getattr(memory, verb)({**filter, "_id": chosen["_id"]}, *what, **options)
            if not upsert:
                return getattr(memory, verb)(filter, *what, **options)
            before = {d["_id"] for d in memory.find({}, {"_id": 1})}
            result = getattr(memory, verb)(filter, *what, upsert=True, **options)
            changed += [d["_id"] for d in memory.find({}, {"_id": 1}) if d["_id"] not in before]
            return result

    def _read(self, verb: str, filter: Filter | None, *args: Any, **kwargs: Any) -> Any:
        with self.database.lock:
            return getattr(self._seen(filter), verb)(*args, **kwargs)

    def _seen(self, filter: Filter | None) -> Any:
        """The documents that a filter may match, as they stand now."""
        with self.database.reading() as connection:
            memory = self._loaded(connection, filter)
        # never while the file is locked: it may take seconds
        if self.look and memory is self._memory and self._may_match_new(filter):
            self._put_found(self.look(lambda key: self._stored.get(key, False)))
        return memory

    @contextmanager
    def _writing(self, filter: Filter | None) -> Iterator[tuple[Any, list[Any]]]:
        """Memory, and a list for the ids of those documents that the block changes; they are written then."""
        with self.database.lock:
            self._seen(filter)
            try:
                with self.database.writing() as connection:
                    memory = self._loaded(connection, filter)
                    changed: list[Any] = []
                    yield memory, changed
                    self._write(connection, memory, changed)
            except BaseException:
                # memory may hold what was not written
                self._forget()
                raise

    def _loaded(self, connection: Connection, filter: Filter | None) -> Any:
        """Bring memory up to date; a process that asks for one run only reads no more than that."""
        if self._seq < 0 and (pin := _pinned(filter)):
            column, values = pin
            places = ", ".join("?" * len(values))
            query = f"select json from documents where collection = ? and {column} in ({places}) and json is not null"
            documents = [_document(text) for (text,) in connection.execute(query, (self.name, *values))]
            memory = _memory(documents)
            # a run that is in no file yet, or not whole, is looked for in the folders
            whole = memory.count_documents(_identity(filter)) >= len(values) and all(map(_has_end, documents))
            if whole or not self.look:
                return memory
        query = "select id, seq, json from documents where collection = ? and seq > ?"
        rows = connection.execute(query, (self.name, self._seq)).fetchall()
        if rows:
            there = [json_util.loads(key) for key, _, _ in rows]
            self._memory.delete_many({"_id": {"$in": there}})
            documents = [_document(text) for _, _, text in rows if text is not None]
            if documents:
                self._memory.insert_many(documents)
            for key in there:
                self._stored.pop(key, None)
                self._found.pop(key, None)
            self._stored |= {document["_id"]: _has_end(document) for document in documents}
        self._seq = max([0, self._seq, *(seq for _, seq, _ in rows)])
        return self._memory

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
        known = [d for d in self._memory.find(_identity(filter), {"_id": 1}) if self._stored.get(d["_id"], False)]
        return len(known) < len(pin[1])

    def _put_found(self, found: list[Document]) -> None:
        """Let memory hold what was found, under what the file says of the same run."""
        there = {document["_id"] for document in found}
        gone = [key for key in self._found if key not in there]
        new = [d for d in found if self._found.get(d["_id"]) is not d and not self._stored.get(d["_id"], False)]
        merged = []
        for document in new:
            # somebody wrote to the document of a run that was still being taken
            before = self._memory.find_one({"_id": document["_id"]}) if document["_id"] in self._stored else None
            merged.append(document | {k: v for k, v in (before or {}).items() if v is not None})
        if gone or new:
            self._memory.delete_many({"_id": {"$in": [*gone, *(d["_id"] for d in new)]}})
        if merged:
            self._memory.insert_many(merged)
        for key in gone:
            del self._found[key]
        self._found |= {document["_id"]: document for document in new}

    def _write(self, connection: Connection, memory: Any, changed: list[Any]) -> None:
        if not changed:
            return
        (last,) = connection.execute(
            "select coalesce(max(seq), 0) from documents where collection = ?", (self.name,)
        ).fetchone()
        there = {d["_id"]: d for d in memory.find({"_id": {"$in": changed}})}
        for key in changed:
            document = there.get(key)
            text = None if document is None else json_util.dumps(document, json_options=_JSON)
            row = (self.name, _text(key), last + 1, _number(document), text)
            connection.execute("replace into documents(collection, id, seq, number, json) values (?, ?, ?, ?, ?)", row)
        if memory is self._memory:
            self._seq = last + 1
            for key in changed:
                self._stored.pop(key, None)
                self._found.pop(key, None)
            self._stored |= {key: _has_end(document) for key, document in there.items()}


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
            with self._collection.database.lock:
                cursor = self._collection._read("find", self._filter, self._filter, *self._args, **self._options)
                for verb, args in self._steps:
                    cursor = getattr(cursor, verb)(*args)
                self._rows = iter(list(cursor))
        return next(self._rows)

    def close(self) -> None:
        """Nothing is open."""


def _memory(documents: Iterable[Document] = ()) -> Any:
    collection: Any = mongomock.MongoClient(tz_aware=True)["memory"]["documents"]
    if rows := list(documents):
        collection.insert_many(rows)
    return collection


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
    document: Document = json_util.loads(text, json_options=_JSON)
    return document


def _has_end(document: Document) -> bool:
    return document.get("end") is not None


def _number(document: Document | None) -> int | None:
    number = document.get("number") if document else None
    return number if isinstance(number, int) and abs(number) < 2**63 else None
