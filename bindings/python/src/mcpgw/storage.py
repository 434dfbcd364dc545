"""Storage in Python: records (collection, key) -> JSON text with a version. docs/storage.md has the rules."""

from __future__ import annotations

import abc
import json
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence

from ._native import Error, callback, check, dump, ffi, lib, make, reply, reply_error


@dataclass(frozen=True)
class Record:
    collection: str
    key: str
    value: str
    version: int


@dataclass(frozen=True)
class Operation:
    """One step of a commit. ``expected_version``: None no condition, 0 must not exist, else must have this version."""

    op: str  # "check", "put" or "erase"
    collection: str
    key: str
    value: str = ""
    expected_version: Optional[int] = None


@dataclass(frozen=True)
class Change:
    collection: str
    key: str
    version: int  # 0: erased


class Storage(abc.ABC):
    """Where a gateway keeps its records. Methods are called from several threads at once; ``commit`` one at a time.

    Raise ``Error("unavailable", "storage_unavailable", ...)`` when the backend is away.
    """

    _handle: Any = None

    @abc.abstractmethod
    def get(self, collection: str, key: str) -> Optional[Record]:
        """The record, or None."""

    @abc.abstractmethod
    def list(self, collection: str, prefix: str, after: str, limit: int) -> Sequence[Record]:
        """Records whose key begins with ``prefix`` and is greater than ``after``, in byte order of their UTF-8 keys, at most
        ``limit`` (0: all)."""

    @abc.abstractmethod
    def commit(self, operations: Sequence[Operation]) -> Sequence[Optional[int]]:
        """All or none. The new versions: 0 for check and erase, None for an erase that found nothing. A version never comes
        twice, not even after an erase. Raise :func:`version_conflict` when a condition does not hold."""

    def ping(self) -> None:
        """Raises when the backend does not answer."""

    def changed(self, changes: Sequence[Change] = ()) -> None:
        """Tells that another process has written; without arguments: something may have been missed."""
        data = dump([{"collection": c.collection, "key": c.key, "version": c.version} for c in changes])
        check(lib.mcpgw_storage_changed, self.handle(), data, len(data))

    def handle(self) -> Any:
        if self._handle is None:
            callbacks = ffi.new("mcpgw_storage_callbacks *")
            callbacks.struct_size = ffi.sizeof("mcpgw_storage_callbacks")
            kept = ffi.new_handle(self)
            _alive[kept] = self
            callbacks.user_data = kept
            callbacks.get, callbacks.list = _get, _list
            callbacks.commit, callbacks.ping, callbacks.destroy = _commit, _ping, _destroy
            try:
                made = make("mcpgw_storage *", lib.mcpgw_storage_create, callbacks)
            except Error:
                _alive.pop(kept, None)
                raise
            self._handle = ffi.gc(made, lib.mcpgw_storage_free)
        return self._handle


def version_conflict(operation: Operation) -> Error:
    return Error("conflict", "version_conflict", "The record has another version", f"{operation.collection}/{operation.key}")


_alive: Dict[Any, Storage] = {}


def _text(data: Any, size: int) -> str:
    return bytes(ffi.buffer(data, size)).decode("utf-8") if size else ""


def _json(record: Record) -> Dict[str, Any]:
    return {"collection": record.collection, "key": record.key, "value": record.value, "version": record.version}


@callback("mcpgw_status(void *, const char *, size_t, const char *, size_t, mcpgw_reply *)", 13)
def _get(user_data: Any, collection: Any, n: int, key: Any, m: int, to: Any) -> int:
    try:
        found = ffi.from_handle(user_data).get(_text(collection, n), _text(key, m))
        return reply(to, None if found is None else _json(found))
    except BaseException as error:  # nothing may pass the border
        return reply_error(to, error)


@callback(
    "mcpgw_status(void *, const char *, size_t, const char *, size_t, const char *, size_t, uint64_t, mcpgw_reply *)", 13
)
def _list(user_data: Any, collection: Any, n: int, prefix: Any, m: int, after: Any, k: int, limit: int, to: Any) -> int:
    try:
        found = ffi.from_handle(user_data).list(_text(collection, n), _text(prefix, m), _text(after, k), limit)
        return reply(to, [_json(record) for record in found])
    except BaseException as error:
        return reply_error(to, error)


@callback("mcpgw_status(void *, const char *, size_t, mcpgw_reply *)", 13)
def _commit(user_data: Any, operations: Any, n: int, to: Any) -> int:
    try:
        steps: List[Operation] = [Operation(**step) for step in json.loads(_text(operations, n))]
        return reply(to, list(ffi.from_handle(user_data).commit(steps)))
    except BaseException as error:
        return reply_error(to, error)


@callback("mcpgw_status(void *, mcpgw_reply *)", 13)
def _ping(user_data: Any, to: Any) -> int:
    try:
        ffi.from_handle(user_data).ping()
        return 0
    except BaseException as error:
        return reply_error(to, error)


@callback("void(void *)")
def _destroy(user_data: Any) -> None:
    _alive.pop(user_data, None)
