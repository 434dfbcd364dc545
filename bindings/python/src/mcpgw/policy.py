"""Who may use what, and with which credential: answers out of memory, with or without a gateway."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Protocol, Sequence

from ._native import dump, ffi, lib, make, options_bytes, raise_error, take_text, text
from .storage import Storage


class ApiError(Exception):
    """A refusal of the REST API: ``status`` is HTTP's, ``code`` the API's own word."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Principal:
    """Somebody who need not be stored."""

    user_id: str = ""
    role: str = "user"
    groups: Sequence[str] = ()


@dataclass(frozen=True)
class Decision:
    allowed: bool
    reason: str
    policy_id: str
    policy_name: str
    #: With ``explain``: the policies that were looked at, in their order.
    considered: List[Dict[str, Any]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return self.allowed


@dataclass(frozen=True)
class Credential:
    value: str = field(repr=False)
    scope: str
    scope_value: str
    from_env: bool


@dataclass(frozen=True)
class Environment:
    values: Dict[str, str] = field(repr=False)
    #: {"key", "scope", "scope_value"} of each value.
    sources: List[Dict[str, str]]


def call_admin(function: Any, handle: Any, method: str, target: str, body: Optional[Any], user_id: str) -> Any:
    """A REST call of the host; the parsed answer."""
    status, out, error = ffi.new("int *"), ffi.new("char **"), ffi.new("char **")
    data = b"" if body is None else dump(body)
    raise_error(
        function(handle, *text(user_id), *text(method), *text(target), data, len(data), status, out, error), error[0]
    )
    answer = take_text(out[0])
    if status[0] >= 400:
        told = json.loads(answer) if answer else {}
        raise ApiError(status[0], told.get("code", ""), told.get("error", ""))
    return json.loads(answer) if answer else None


class Repository:
    """Users, targets, policies and credentials. Of a gateway (``gateway.repository``), or alone: then it starts no thread."""

    def __init__(self, options: Optional[Mapping[str, Any]] = None, *, storage: Optional[Storage] = None) -> None:
        data = options_bytes(options)
        handle = ffi.NULL if storage is None else storage.handle()
        made = make("mcpgw_repository *", lib.mcpgw_repository_open, data, len(data), handle)
        self._handle = ffi.gc(made, lib.mcpgw_repository_free)

    @classmethod
    def _of_gateway(cls, gateway: Any) -> "Repository":
        out = cls.__new__(cls)
        out._handle = ffi.gc(make("mcpgw_repository *", lib.mcpgw_gateway_repository, gateway), lib.mcpgw_repository_free)
        return out

    def admin(self, method: str, target: str, body: Optional[Any] = None, *, user_id: str = "") -> Any:
        """The REST API with an administrator's rights; ``user_id``: for whose sake. Raises ApiError."""
        return call_admin(lib.mcpgw_repository_admin, self._handle, method, target, body, user_id)


class HasRepository(Protocol):
    @property
    def repository(self) -> Repository: ...


def _question(user: Optional[str], principal: Optional[Principal], target: str) -> Dict[str, Any]:
    if (user is None) == (principal is None):
        raise ValueError("either user or principal")
    if principal is None:
        return {"user": user, "target": target}
    who = {"user_id": principal.user_id, "role": principal.role, "groups": list(principal.groups)}
    return {"principal": who, "target": target}


class _OfRepository:
    _kind: str

    def __init__(self, repository: Any) -> None:
        """``repository``: a Repository, or whatever has one: a Gateway."""
        owner: Repository = repository if isinstance(repository, Repository) else repository.repository
        made = make(f"{self._kind} *", getattr(lib, f"{self._kind}_create"), owner._handle)
        self._handle = ffi.gc(made, getattr(lib, f"{self._kind}_free"))

    def _ask(self, function: Any, question: Mapping[str, Any]) -> Any:
        data = dump(question)
        return json.loads(take_text(make("char *", function, self._handle, data, len(data))))


class PolicyEngine(_OfRepository):
    """May somebody use an item of a target? Default deny. Safe from any thread."""

    _kind = "mcpgw_policy_engine"

    def evaluate(
        self, *, target: str, name: str, type: str = "tool", user: Optional[str] = None,
        principal: Optional[Principal] = None, explain: bool = False,
    ) -> Decision:  # fmt: skip
        """``user`` is an id or an email, ``target`` an id or a name. Somebody or something unknown is denied."""
        question = {**_question(user, principal, target), "type": type, "name": name, "explain": explain}
        answer = self._ask(lib.mcpgw_policy_engine_evaluate, question)
        return Decision(
            answer["allowed"], answer["reason"], answer["policy_id"], answer["policy_name"], answer.get("considered", [])
        )


class TokenResolver(_OfRepository):
    """Which stored credential a user's calls to a target carry."""

    _kind = "mcpgw_token_resolver"

    def resolve(self, *, target: str, user: Optional[str] = None, principal: Optional[Principal] = None) -> Optional[Credential]:
        answer = self._ask(lib.mcpgw_token_resolver_resolve, _question(user, principal, target))
        return None if answer is None else Credential(**answer)


class EnvResolver(_OfRepository):
    """The environment of a user's calls to a target."""

    _kind = "mcpgw_env_resolver"

    def resolve(self, *, target: str, user: Optional[str] = None, principal: Optional[Principal] = None) -> Environment:
        answer = self._ask(lib.mcpgw_env_resolver_resolve, _question(user, principal, target))
        return Environment(answer["values"], answer["sources"])
