"""Gateway: one MCP endpoint in front of many servers, inside this process."""

from __future__ import annotations

import atexit
import threading
import weakref
from typing import Any, Dict, Mapping, Optional, Union

from ._native import Error, ffi, lib, make, options_bytes
from ._upstream import Connect, Hooks, Log, Parts
from .http import HeadersLike, Request, Response, StreamedResponse, begin, read_response
from .policy import Repository, call_admin
from .server import Server
from .storage import Storage

_open_gateways: "weakref.WeakSet[Gateway]" = weakref.WeakSet()


class HttpServer:
    """A gateway on a port."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self.port: int = lib.mcpgw_server_port(handle)
        self.url: str = bytes(ffi.string(lib.mcpgw_server_url(handle))).decode()

    def close(self) -> None:
        """Ends all connections."""
        handle, self._handle = self._handle, None
        if handle is not None:
            lib.mcpgw_server_free(handle)

    def __enter__(self) -> "HttpServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Gateway:
    """
    ``options``: the keys of docs/configuration.md, nested. ``storage``: where records are kept (default: option
    database.url, else memory). ``servers``: MCP servers of this process, by the name of the target. ``connect``: decides
    per connection instead. ``log``: gets each log line.

    Safe from any thread; close it, or use it as a context manager.
    """

    def __init__(
        self, options: Optional[Mapping[str, Any]] = None, *, storage: Optional[Storage] = None,
        servers: Optional[Mapping[str, Server]] = None, connect: Optional[Connect] = None, log: Optional[Log] = None,
    ) -> None:  # fmt: skip
        self._servers: Dict[str, Server] = dict(servers or {})
        self._lock = threading.Lock()
        self._http: "weakref.WeakSet[HttpServer]" = weakref.WeakSet()
        own = self._servers

        def find(parameters: Mapping[str, Any]) -> Optional[Server]:
            found = own.get(parameters["target"]["name"])
            return found if found is not None or connect is None else connect(parameters)

        # The storage stays alive as long as the gateway: its callbacks are objects of this process.
        self._storage = storage
        parts = Parts(Hooks(find, log), ffi.NULL if storage is None else storage.handle())
        data = options_bytes(options)
        self._handle = make("mcpgw_gateway *", lib.mcpgw_gateway_create, data, len(data), parts.parts)
        self.repository = Repository._of_gateway(self._handle)
        _open_gateways.add(self)

    # --- requests -----------------------------------------------------------------------------------------------------------

    def handle(
        self, method: str, target: str, *, headers: HeadersLike = (), body: Union[bytes, str] = b"",
        remote_address: str = "127.0.0.1", timeout: float = 120.0,
    ) -> Response:  # fmt: skip
        """Answers one request; a streamed answer is collected to its end, or until ``timeout`` seconds have passed."""
        request = Request(method, target, headers, body, remote_address)
        deadline = max(1, int(timeout * 1000))
        return read_response(make("mcpgw_response *", lib.mcpgw_gateway_handle, self.handle_, request.struct, deadline))

    def stream(
        self, method: str, target: str, *, headers: HeadersLike = (), body: Union[bytes, str] = b"",
        remote_address: str = "127.0.0.1",
    ) -> StreamedResponse:  # fmt: skip
        """Answers one request piece by piece; returns with the head of the answer."""
        response = StreamedResponse()
        return response.started(begin(self.handle_, Request(method, target, headers, body, remote_address), response))

    def admin(self, method: str, target: str, body: Optional[Any] = None, *, user_id: str = "") -> Any:
        """The REST API (docs/rest-api.md) with an administrator's rights: whoever holds the gateway is one. ``user_id``: for
        whose sake. Gives the parsed answer, raises ApiError."""
        return call_admin(lib.mcpgw_gateway_admin, self.handle_, method, target, body, user_id)

    # --- servers ------------------------------------------------------------------------------------------------------------

    def add_server(self, server: Server, **target: Any) -> Dict[str, Any]:
        """Makes a target of a server of this process; further members of the target may be given. Gives the target."""
        self._servers[server.name] = server
        members = {"name": server.name, "transport_type": "streamable-http", "url": "http://in-process.invalid/mcp"}
        made: Dict[str, Any] = self.admin("POST", "/api/targets", {**members, **target})
        return made

    def serve(self, options: Optional[Mapping[str, Any]] = None) -> HttpServer:
        """Listens: ``{"server": {"host": ..., "port": ...}}``; without options on a free port of 127.0.0.1."""
        data = options_bytes(options)
        server = HttpServer(make("mcpgw_server *", lib.mcpgw_server_start, self.handle_, data, len(data)))
        self._http.add(server)
        return server

    # --- life ---------------------------------------------------------------------------------------------------------------

    @property
    def handle_(self) -> Any:
        if self._handle is None:
            raise Error("unavailable", "closed", "The gateway is closed")
        return self._handle

    def close(self, grace: float = 5.0) -> None:
        """Lets running requests end for at most ``grace`` seconds. Not from inside a callback or a tool."""
        with self._lock:
            handle = self._handle
            if handle is None:
                return
            lib.mcpgw_gateway_close(handle, max(0, int(grace * 1000)))
            for server in list(self._http):
                server.close()
            self._handle = None
            lib.mcpgw_gateway_free(handle)

    def __enter__(self) -> "Gateway":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close(0)


@atexit.register
def _close_all() -> None:
    """Before Python ends: the library's threads must not call into an interpreter that has gone."""
    for gateway in list(_open_gateways):
        gateway.close(0)
