"""MCP servers inside the Python process: functions that the gateway offers as tools."""

from __future__ import annotations

import inspect
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, TypeVar, Union

Function = TypeVar("Function", bound=Callable[..., Any])
Handler = Callable[[Mapping[str, Any]], Any]

_JSON_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object"}
_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
_MODERN = "2026-07-28"
_META = "io.modelcontextprotocol/"


class ToolError(Exception):
    """Raised by a tool: its text becomes the result, marked as an error."""


class Server:
    """An MCP server of Python functions.

        git = mcpgw.Server("git")

        @git.tool
        def git_log(path: str, count: int = 10) -> str:
            "The last commits."
            ...

    It speaks MCP of both eras: 2026-07-28 to a gateway whose target says ``protocol_era="modern"``, else revisions up to
    2025-11-25. Tools run on threads of the server's own, ``threads`` at once, so they may block and may call the gateway.
    """

    def __init__(self, name: str, version: str = "1", *, threads: int = 8) -> None:
        self.name = name
        self.version = version
        self._tools: Dict[str, Tuple[Dict[str, Any], Handler]] = {}
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=f"mcp-{name}")
        #: Messages that have come, oldest first: for assertions of tests.
        self.received: List[Dict[str, Any]] = []

    def tool(self, function: Function) -> Function:
        """Offers a function; its name, text and parameters describe it. It answers with a text, a mapping that is a whole
        ``CallToolResult``, or any other value, which is told as JSON."""
        properties: Dict[str, Any] = {}
        required: List[str] = []
        hints = inspect.get_annotations(function, eval_str=True) if hasattr(inspect, "get_annotations") else {}
        for name, parameter in inspect.signature(function).parameters.items():
            kind = _JSON_TYPES.get(hints.get(name, parameter.annotation))
            properties[name] = {"type": kind} if kind else {}
            if parameter.default is inspect.Parameter.empty:
                required.append(name)
        schema: Dict[str, Any] = {"type": "object", "properties": properties}
        if required:
            schema["required"] = required
        self.add_tool(
            function.__name__, lambda arguments: function(**arguments), description=inspect.getdoc(function) or "", schema=schema
        )
        return function

    def add_tool(
        self, name: str, handler: Handler, *, description: str = "", schema: Optional[Mapping[str, Any]] = None
    ) -> None:
        shown = {"name": name, "description": description, "inputSchema": dict(schema or {"type": "object"})}
        self._tools[name] = (shown, handler)

    def received_calls(self, tool: Optional[str] = None) -> List[Dict[str, Any]]:
        """The ``params`` of the calls that have come, of one tool or of all."""
        calls = [m["params"] for m in self.received if m.get("method") == "tools/call"]
        return [c for c in calls if tool is None or c.get("name") == tool]

    # --- the wire ---------------------------------------------------------------------------------------------------------

    def receive(self, text: str, deliver: Callable[[str], None]) -> None:
        """Takes one JSON-RPC message; answers go to ``deliver``, from any thread."""
        message = json.loads(text)
        self.received.append(message)
        if "id" not in message or "method" not in message:
            return
        if message["method"] == "tools/call":
            self._pool.submit(self._answer, message, deliver)
        else:
            self._answer(message, deliver)

    def _answer(self, message: Mapping[str, Any], deliver: Callable[[str], None]) -> None:
        answer: Dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        try:
            params = message.get("params") or {}
            answer["result"] = self._result(message["method"], params)
            if _META + "protocolVersion" in params.get("_meta", {}):
                answer["result"] = {**_modern_members(message["method"]), **answer["result"]}
        except _RpcError as error:
            answer["error"] = {"code": error.code, "message": str(error)}
        except Exception as error:  # a fault of a handler is no fault of the protocol
            answer["error"] = {"code": -32603, "message": f"{type(error).__name__} in the server"}
        deliver(json.dumps(answer, ensure_ascii=False))

    def _result(self, method: str, params: Mapping[str, Any]) -> Dict[str, Any]:
        if method == "initialize":
            asked = params.get("protocolVersion")
            return {
                "protocolVersion": asked if asked in _VERSIONS else _VERSIONS[-1],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": self.name, "version": self.version},
            }
        if method == "server/discover":
            return {
                "supportedVersions": [_MODERN],
                "capabilities": {"tools": {}},
                "_meta": {_META + "serverInfo": {"name": self.name, "version": self.version}},
            }
        if method == "ping":
            return {}
        if method == "tools/list":
            return {"tools": [shown for shown, _ in self._tools.values()]}
        if method == "tools/call":
            return self._call(params)
        raise _RpcError(-32601, "Method not found")

    def _call(self, params: Mapping[str, Any]) -> Dict[str, Any]:
        found = self._tools.get(str(params.get("name")))
        if found is None:
            raise _RpcError(-32602, "There is no such tool")
        try:
            return _tool_result(found[1](params.get("arguments") or {}))
        except ToolError as error:
            return {"content": [{"type": "text", "text": str(error)}], "isError": True}
        except TypeError as error:
            raise _RpcError(-32602, str(error)) from error


class _RpcError(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def _modern_members(method: str) -> Dict[str, Any]:
    """What 2026-07-28 wants of a result besides."""
    cached = {"ttlMs": 0, "cacheScope": "private"} if method in ("server/discover", "tools/list") else {}
    return {"resultType": "complete", **cached}


def _tool_result(value: Union[str, Mapping[str, Any], Any]) -> Dict[str, Any]:
    if isinstance(value, Mapping) and "content" in value:
        return dict(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return {"content": [{"type": "text", "text": text}]}
