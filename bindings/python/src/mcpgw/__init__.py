"""mcpgw: an MCP gateway in your process.

    gateway = mcpgw.Gateway({"database": {"url": "sqlite://gateway.db"}, "jwt": {"secret": ...}, "encryption": {"key": ...}})
    with gateway.serve() as server:
        print(server.url)

See README.md of this package; docs/c-api.md tells what stands below.
"""

from __future__ import annotations

from . import testing
from ._native import Error, ffi, lib
from .aio import AsyncGateway, AsyncStreamedResponse
from .gateway import Gateway, HttpServer
from .http import Response, StreamedResponse
from .policy import (
    ApiError,
    Credential,
    Decision,
    Environment,
    EnvResolver,
    PolicyEngine,
    Principal,
    Repository,
    TokenResolver,
)
from .server import Server, ToolError
from .storage import Change, Operation, Record, Storage, version_conflict

__version__: str = bytes(ffi.string(lib.mcpgw_version())).decode()

__all__ = [
    "ApiError",
    "AsyncGateway",
    "AsyncStreamedResponse",
    "Change",
    "Credential",
    "Decision",
    "EnvResolver",
    "Environment",
    "Error",
    "Gateway",
    "HttpServer",
    "Operation",
    "PolicyEngine",
    "Principal",
    "Record",
    "Repository",
    "Response",
    "Server",
    "Storage",
    "StreamedResponse",
    "TokenResolver",
    "ToolError",
    "testing",
    "version_conflict",
]
