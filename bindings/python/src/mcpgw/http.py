"""HTTP as plain values: what a gateway takes and gives."""

from __future__ import annotations

import json
import queue
from dataclasses import dataclass
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple, Union

from ._native import callback, check, ffi, lib, text

Headers = List[Tuple[str, str]]
HeadersLike = Union[Mapping[str, str], Iterable[Tuple[str, str]]]


def _find(headers: Headers, name: str) -> Optional[str]:
    name = name.lower()
    return next((value for key, value in headers if key.lower() == name), None)


@dataclass(frozen=True)
class Response:
    status: int
    headers: Headers
    body: bytes

    def header(self, name: str) -> Optional[str]:
        return _find(self.headers, name)

    @property
    def text(self) -> str:
        return self.body.decode("utf-8")

    def json(self) -> Any:
        return json.loads(self.body)


class Request:
    """A mcpgw_request with all that it points to."""

    def __init__(self, method: str, target: str, headers: HeadersLike, body: Union[bytes, str], remote_address: str) -> None:
        pairs = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
        data = body.encode("utf-8") if isinstance(body, str) else bytes(body)
        self._kept: List[Any] = []
        self.struct = ffi.new("mcpgw_request *")
        self.struct.struct_size = ffi.sizeof("mcpgw_request")
        self.struct.method, self.struct.method_size = self._text(method)
        self.struct.target, self.struct.target_size = self._text(target)
        self.struct.remote_address, self.struct.remote_address_size = self._text(remote_address)
        self._headers = ffi.new("mcpgw_header[]", len(pairs))
        for i, (name, value) in enumerate(pairs):
            self._headers[i].name, self._headers[i].name_size = self._text(name, "latin-1")
            self._headers[i].value, self._headers[i].value_size = self._text(value, "latin-1")
        self.struct.headers = self._headers
        self.struct.header_count = len(pairs)
        self._body = ffi.from_buffer(data)
        self.struct.body, self.struct.body_size = self._body, len(data)

    def _text(self, value: str, encoding: str = "utf-8") -> Tuple[Any, int]:
        data = value.encode(encoding)
        kept = ffi.new("char[]", data)
        self._kept.append(kept)
        return kept, len(data)


def read_headers(pointer: Any, size: int) -> Headers:
    return [
        (
            bytes(ffi.buffer(pointer[i].name, pointer[i].name_size)).decode("latin-1"),
            bytes(ffi.buffer(pointer[i].value, pointer[i].value_size)).decode("latin-1"),
        )
        for i in range(size)
    ]


def read_response(pointer: Any) -> Response:
    try:
        count = lib.mcpgw_response_header_count(pointer)
        headers: Headers = []
        for i in range(count):
            header = lib.mcpgw_response_header(pointer, i)
            headers.append(
                (
                    bytes(ffi.buffer(header.name, header.name_size)).decode("latin-1"),
                    bytes(ffi.buffer(header.value, header.value_size)).decode("latin-1"),
                )
            )
        size = ffi.new("size_t *")
        body = lib.mcpgw_response_body(pointer, size)
        return Response(lib.mcpgw_response_status(pointer), headers, bytes(ffi.buffer(body, size[0])))
    finally:
        lib.mcpgw_response_free(pointer)


class Receiver:
    """Where the pieces of an answer arrive, on threads of the library."""

    def on_head(self, status: int, headers: Headers, streamed: bool) -> None:
        raise NotImplementedError

    def on_data(self, data: bytes) -> None:
        raise NotImplementedError

    def on_end(self, complete: bool) -> None:
        raise NotImplementedError


_alive: Dict[Any, Receiver] = {}


@callback("void(void *, int, const mcpgw_header *, size_t, int)")
def _on_head(user_data: Any, status: int, headers: Any, count: int, streamed: int) -> None:
    _alive[user_data].on_head(status, read_headers(headers, count), bool(streamed))


@callback("int(void *, const char *, size_t)", 1)
def _on_data(user_data: Any, data: Any, size: int) -> int:
    _alive[user_data].on_data(bytes(ffi.buffer(data, size)))
    return 0


@callback("void(void *, int)")
def _on_end(user_data: Any, complete: int) -> None:
    _alive.pop(user_data).on_end(bool(complete))


def begin(gateway: Any, request: Request, receiver: Receiver) -> Any:
    """Hands the request over; gives the call, which is cancelled by lib.mcpgw_call_cancel."""
    callbacks = ffi.new("mcpgw_answer_callbacks *")
    callbacks.struct_size = ffi.sizeof("mcpgw_answer_callbacks")
    handle = ffi.new_handle(receiver)
    callbacks.user_data = handle
    callbacks.on_head, callbacks.on_data, callbacks.on_end = _on_head, _on_data, _on_end
    out = ffi.new("mcpgw_call **")
    _alive[handle] = receiver
    try:
        check(lib.mcpgw_gateway_handle_async, gateway, request.struct, callbacks, out)
    except BaseException:
        _alive.pop(handle, None)
        raise
    return ffi.gc(out[0], lib.mcpgw_call_free)


class StreamedResponse(Receiver):
    """An answer that is read while it comes. A context manager; leaving it tells the gateway that its client has gone."""

    status: int
    headers: Headers
    #: Whether the answer came to its end; None while it comes.
    complete: Optional[bool] = None

    def __init__(self) -> None:
        self._pieces: "queue.SimpleQueue[Any]" = queue.SimpleQueue()
        self._call: Any = None

    def started(self, call: Any) -> "StreamedResponse":
        self._call = call
        head = self._pieces.get()
        if head is None:
            raise RuntimeError("The answer ended before it began")
        self.status, self.headers = head
        return self

    def header(self, name: str) -> Optional[str]:
        return _find(self.headers, name)

    def __iter__(self) -> Iterator[bytes]:
        while self.complete is None or not self._pieces.empty():
            piece = self._pieces.get()
            if piece is None:
                return
            yield piece

    def close(self) -> None:
        lib.mcpgw_call_cancel(self._call)

    def __enter__(self) -> "StreamedResponse":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def on_head(self, status: int, headers: Headers, streamed: bool) -> None:
        self._pieces.put((status, headers))

    def on_data(self, data: bytes) -> None:
        self._pieces.put(data)

    def on_end(self, complete: bool) -> None:
        self.complete = complete
        self._pieces.put(None)


__all__ = ["Headers", "HeadersLike", "Response", "StreamedResponse", "text"]
