"""A gateway for tests: users by name, servers of Python functions, no port.

    with mcpgw.testing.gateway() as gw:
        git = gw.server("git")

        @git.tool
        def git_log(path: str) -> str:
            return "abc " + path

        gw.allow("alice", "git", "^git_log$")
        assert gw.as_user("alice").call_tool("git_log", path=".").text == "abc ."
        assert not gw.as_user("bob").call_tool("git_log", path=".").ok
"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from .gateway import Gateway
from .server import Server

_VERSION = "2025-11-25"
_MODERN = "2026-07-28"
_META = "io.modelcontextprotocol/"


def _header_value(text: str) -> str:
    """A name as an HTTP header carries it in 2026-07-28."""
    plain = text.isascii() and text.isprintable() and text == text.strip() and not text.startswith("=?base64?")
    return text if plain else "=?base64?" + base64.b64encode(text.encode()).decode() + "?="


class Reply:
    """The answer to an MCP request."""

    def __init__(self, status: int, message: Mapping[str, Any], notifications: Sequence[Mapping[str, Any]] = ()) -> None:
        self.status = status
        self.message = dict(message)
        #: Messages that came before it.
        self.notifications = list(notifications)

    @property
    def ok(self) -> bool:
        """A result, and not one that tells of a tool's failure."""
        return "result" in self.message and not self.result.get("isError", False)

    @property
    def result(self) -> Dict[str, Any]:
        found: Dict[str, Any] = self.message.get("result", {})
        return found

    @property
    def error_code(self) -> Optional[int]:
        error = self.message.get("error")
        return error.get("code") if isinstance(error, dict) else None

    @property
    def error(self) -> str:
        error = self.message.get("error", "")
        return str(error.get("message", "")) if isinstance(error, dict) else str(error)

    @property
    def text(self) -> str:
        return "\n".join(part["text"] for part in self.result.get("content", []) if part.get("type") == "text")

    def __repr__(self) -> str:
        return f"Reply({self.status}, {json.dumps(self.message)})"


class User:
    """Somebody who talks to the gateway: initializes with the first request, keeps the session."""

    def __init__(self, gateway: Gateway, user_id: str, email: str, token: str) -> None:
        self.gateway = gateway
        self.id = user_id
        self.email = email
        self.token = token
        self.session_id: Optional[str] = None
        self._version = _VERSION
        self._next = 0
        self._lock = threading.Lock()

    def _id(self) -> int:
        with self._lock:
            self._next += 1
            return self._next

    def speak(self, version: str) -> None:
        """Goes on in this revision: "2026-07-28" has no session, others begin with a handshake."""
        self._version = version
        self.session_id = None

    def post(self, message: Mapping[str, Any], headers: Optional[Mapping[str, str]] = None) -> Reply:
        """One JSON-RPC message as it is."""
        sent = {
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
        }
        if self.session_id is not None:
            sent.update({"Mcp-Session-Id": self.session_id, "MCP-Protocol-Version": self._version})
        sent.update(headers or {})
        answer = self.gateway.handle("POST", "/mcp", headers=sent, body=json.dumps(message))
        opened = answer.header("Mcp-Session-Id")
        if opened and self.session_id is None:
            self.session_id = opened
        messages = self._messages(answer.header("Content-Type") or "", answer.text)
        return Reply(answer.status, messages[-1] if messages else {}, messages[:-1])

    @staticmethod
    def _messages(content_type: str, body: str) -> List[Dict[str, Any]]:
        if "text/event-stream" in content_type:
            events = body.replace("\r\n", "\n").split("\n\n")
            data = ["".join(line[5:].strip() for line in event.split("\n") if line.startswith("data:")) for event in events]
            return [json.loads(text) for text in data if text]
        return [json.loads(body)] if body else []

    def request(self, method: str, params: Optional[Mapping[str, Any]] = None) -> Reply:
        if self._version == _MODERN:
            about = {"protocolVersion": _MODERN, "clientCapabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
            full = dict(params or {})
            full["_meta"] = {**{_META + name: value for name, value in about.items()}, **full.get("_meta", {})}
            headers = {"MCP-Protocol-Version": _MODERN, "Mcp-Method": method}
            named = full.get("uri" if method == "resources/read" else "name")
            if named is not None:
                headers["Mcp-Name"] = _header_value(str(named))
            return self.post({"jsonrpc": "2.0", "id": self._id(), "method": method, "params": full}, headers)
        if self.session_id is None and method != "initialize":
            opened = self.request(
                "initialize",
                {"protocolVersion": self._version, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
            )
            if self.session_id is None:
                return opened
            self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return self.post({"jsonrpc": "2.0", "id": self._id(), "method": method, "params": dict(params or {})})

    def call_tool(self, tool: str, /, **arguments: Any) -> Reply:
        return self.request("tools/call", {"name": tool, "arguments": arguments})

    def list_tools(self) -> List[str]:
        return [tool["name"] for tool in self.request("tools/list").result.get("tools", [])]

    def api(self, method: str, target: str, body: Optional[Any] = None) -> Any:
        """A REST call with this user's own token: a mcpgw.Response."""
        headers = {"Authorization": f"Bearer {self.token}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        return self.gateway.handle(method, target, headers=headers, body=b"" if body is None else json.dumps(body))


class TestGateway(Gateway):
    """A gateway in memory, with what a test author wants."""

    __test__ = False  # for pytest: not a class of tests

    def __init__(self, options: Optional[Mapping[str, Any]] = None, **parts: Any) -> None:
        super().__init__(options, **parts)
        self._users: Dict[str, User] = {}
        self._targets: Dict[str, str] = {}
        self._making = threading.Lock()

    def server(self, name: str, **target: Any) -> Server:
        """A server of Python functions, and the target for it."""
        made = Server(name)
        self._targets[name] = self.add_server(made, **target)["id"]
        return made

    def as_user(self, name: str, *, role: Optional[str] = None, groups: Sequence[str] = ()) -> User:
        """The user, made with the first mention; "admin" is an administrator."""
        with self._making:
            if name not in self._users:
                email = name if "@" in name else f"{name}@example.test"
                user = self.admin(
                    "POST",
                    "/api/users",
                    {
                        "email": email,
                        "password": "a password of tests",
                        "role": role or ("admin" if name == "admin" else "user"),
                        "groups": list(groups),
                    },
                )
                token = self.admin("POST", "/api/auth/tokens", {"name": "test"}, user_id=user["id"])["token"]
                self._users[name] = User(self, user["id"], email, token)
            return self._users[name]

    def allow(self, user: str, target: Optional[str] = None, pattern: str = "") -> str:
        """Lets a user use what matches (nothing given: everything) of a server; gives the policy's id."""
        return self._rule("allow", user, target, pattern)

    def deny(self, user: str, target: Optional[str] = None, pattern: str = "") -> str:
        """As allow(), and it comes first."""
        return self._rule("deny", user, target, pattern)

    def _rule(self, effect: str, user: str, target: Optional[str], pattern: str) -> str:
        policy: Dict[str, Any] = {
            "name": f"{user}: {effect} {target or 'everything'} {pattern}"[:200],
            "effect": effect,
            "priority": 100 if effect == "deny" else 0,
            "resource_pattern": pattern,
            "subjects": [{"subject_type": "user", "subject_value": self.as_user(user).id}],
        }
        if target is not None:
            policy["target_id"] = self._targets[target]
        made = self.admin("POST", "/api/policies", policy)
        return str(made["id"])

    def audit_rows(self, **filters: str) -> List[Dict[str, Any]]:
        """The audit log, newest first. Rows are written behind the answers unless option audit.sync is set, as here."""
        query = "&".join(f"{key}={value}" for key, value in filters.items())
        rows: List[Dict[str, Any]] = self.admin("GET", "/api/logs" + (f"?{query}" if query else ""))
        return rows


@contextlib.contextmanager
def gateway(options: Optional[Mapping[str, Any]] = None, **parts: Any) -> Iterator[TestGateway]:
    """A gateway that ends with the block. ``options`` and ``parts`` as for mcpgw.Gateway."""
    ours: Dict[str, Any] = {"audit": {"sync": True}}
    if parts.get("storage") is not None:  # it asks for a key; the same each time, so that a test may begin again on it
        ours["encryption"] = {"key": "a key of tests: it is no secret!"}
    made = TestGateway({**ours, **(options or {})}, **parts)
    try:
        yield made
    finally:
        made.close(0)
