"""Connections of a gateway to servers of this process, and its log lines: the callbacks that hang on a gateway."""

from __future__ import annotations

import json
import threading
from typing import Any, Callable, Dict, Mapping, Optional

from ._native import Error, callback, ffi, lib, reply_error
from .server import Server

#: Given the parameters of a connection, the server to connect to; None: not one of this process.
Connect = Callable[[Mapping[str, Any]], Optional[Server]]
#: One log line: {"level", "module", "message", "fields"}.
Log = Callable[[Mapping[str, Any]], None]


class Hooks:
    """What the callbacks of one gateway use. The library drops it when no callback can come any more."""

    def __init__(self, connect: Connect, log: Optional[Log]) -> None:
        self.connect = connect
        self.log = log


class _Connection:
    """The host's end of a connection. A channel must not be used after it is freed: the lock sees to that."""

    def __init__(self, server: Server, channel: Any) -> None:
        self.server = server
        self._channel = channel
        self._lock = threading.Lock()

    def deliver(self, message: str) -> None:
        data = message.encode("utf-8")
        with self._lock:
            if self._channel is not None:
                lib.mcpgw_channel_deliver(self._channel, data, len(data))

    def close(self) -> None:
        with self._lock:
            channel, self._channel = self._channel, None
        lib.mcpgw_channel_free(channel)


_alive: Dict[Any, Any] = {}


def _keep(thing: Any) -> Any:
    handle = ffi.new_handle(thing)
    _alive[handle] = thing
    return handle


@callback("mcpgw_status(void *, const char *, size_t, mcpgw_channel *, void **, mcpgw_reply *)", 13)
def _connect(user_data: Any, parameters: Any, size: int, channel: Any, connection: Any, to: Any) -> int:
    try:
        server = ffi.from_handle(user_data).connect(json.loads(bytes(ffi.buffer(parameters, size))))
        if server is None:
            return 11  # MCPGW_UNSUPPORTED
        connection[0] = _keep(_Connection(server, channel))
        return 0
    except BaseException as error:  # nothing may pass the border
        return reply_error(to, error)


@callback("void(void *, const char *, size_t)")
def _send(connection: Any, message: Any, size: int) -> None:
    open_one: _Connection = ffi.from_handle(connection)
    try:
        open_one.server.receive(bytes(ffi.buffer(message, size)).decode("utf-8"), open_one.deliver)
    except BaseException:  # the gateway's own deadline answers for a server that fails
        return


@callback("void(void *)")
def _close(connection: Any) -> None:
    _alive.pop(connection).close()


@callback("void(void *)")
def _destroy(user_data: Any) -> None:
    _alive.pop(user_data, None)


@callback("void(void *, mcpgw_log_level, const char *, size_t)")
def _log(user_data: Any, level: int, event: Any, size: int) -> None:
    hooks: Hooks = ffi.from_handle(user_data)
    if hooks.log is None:
        return
    try:
        hooks.log(json.loads(bytes(ffi.buffer(event, size))))
    except BaseException:  # a line that cannot be told must not end what it tells of
        return


class Parts:
    """mcpgw_gateway_parts, with all that it points to."""

    def __init__(self, hooks: Hooks, storage: Any) -> None:
        self.parts = ffi.new("mcpgw_gateway_parts *")
        self.parts.struct_size = ffi.sizeof("mcpgw_gateway_parts")
        self.parts.storage = storage
        self._upstream = ffi.new("mcpgw_upstream_callbacks *")
        self._upstream.struct_size = ffi.sizeof("mcpgw_upstream_callbacks")
        self._upstream.user_data = _keep(hooks)
        self._upstream.connect, self._upstream.send = _connect, _send
        self._upstream.close, self._upstream.destroy = _close, _destroy
        self.parts.upstream = self._upstream
        if hooks.log is not None:
            self._log = ffi.new("mcpgw_log_callbacks *")
            self._log.struct_size = ffi.sizeof("mcpgw_log_callbacks")
            self._log.user_data = _keep(hooks)
            self._log.log, self._log.destroy = _log, _destroy
            self.parts.log = self._log


__all__ = ["Connect", "Error", "Hooks", "Log", "Parts"]
