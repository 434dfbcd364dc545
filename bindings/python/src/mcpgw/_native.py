"""The shared library, and what crosses its border: texts, errors, callbacks.

Calls release the GIL, so a callback that the library makes meanwhile can run.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Tuple

from cffi import FFI

_STATUS = (
    "ok", "invalid_argument", "unauthenticated", "permission_denied", "not_found", "conflict", "precondition_failed",
    "unavailable", "deadline_exceeded", "cancelled", "resource_exhausted", "unsupported", "data_loss", "internal",
)  # fmt: skip


class Error(Exception):
    """What the library answers with when it cannot do something.

    ``code`` is the broad kind ("not_found"), ``reason`` a stable word for programs ("unknown_option").
    Raised by a callback (a Storage, a connect function) it is handed to the library as it is.
    """

    def __init__(self, code: str, reason: str, message: str, field: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.field = field

    def __str__(self) -> str:
        where = f" ({self.field})" if self.field else ""
        return f"{self.reason}: {self.message}{where}"


def _declarations(header: str) -> str:
    start = header.index("[declarations]")
    start = header.index("*/", start) + 2
    end = header.index("/* [declarations end]")
    return header[start:end]


def _open() -> Tuple[Any, Any]:
    here = Path(__file__).resolve().parent
    made = FFI()
    made.cdef(_declarations((here / "mcpgw.h").read_text(encoding="utf-8")))
    library = made.dlopen(os.environ.get("MCPGW_C_LIBRARY") or str(here / "libmcpgw_c.so"))
    return made, library


ffi, lib = _open()


def callback(signature: str, failed: Any = None) -> Callable[[Callable[..., Any]], Any]:
    """A function that the library may call; ``failed`` is its answer when it raises nevertheless."""
    made: Callable[[Callable[..., Any]], Any] = ffi.callback(signature, error=failed)
    return made


def status_of(code: str) -> int:
    return _STATUS.index(code) if code in _STATUS else _STATUS.index("internal")


def code_of(status: int) -> str:
    return _STATUS[status] if 0 <= status < len(_STATUS) else "internal"


def take_text(pointer: Any) -> str:
    """A text that the library gave out, which is freed."""
    try:
        return bytes(ffi.string(pointer)).decode("utf-8")
    finally:
        lib.mcpgw_free(pointer)


def dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def text(value: str) -> Tuple[bytes, int]:
    data = value.encode("utf-8")
    return data, len(data)


def raise_error(status: int, error: Any) -> None:
    if status == 0:
        return
    told: Dict[str, str] = json.loads(take_text(error)) if error != ffi.NULL else {}
    raise Error(
        told.get("code", code_of(status)), told.get("reason", "internal"), told.get("message", "The call failed"),
        told.get("field", ""),
    )  # fmt: skip


def check(function: Callable[..., int], *arguments: Any) -> None:
    """Calls a function whose last parameter is out_error."""
    error = ffi.new("char **")
    raise_error(function(*arguments, error), error[0])


def make(kind: str, function: Callable[..., int], *arguments: Any) -> Any:
    """Calls a function whose last parameters are out and out_error; gives what came out."""
    out = ffi.new(f"{kind} *")
    check(function, *arguments, out)
    return out[0]


def reply(to: Any, value: Any) -> int:
    data = dump(value)
    lib.mcpgw_reply_set(to, data, len(data))
    return 0


def reply_error(to: Any, error: BaseException) -> int:
    """The status and reply that tell of an exception. One that is not ours may hold anything: only its kind is told."""
    if not isinstance(error, Error):
        error = Error("internal", "callback_failed", f"The callback raised {type(error).__name__}")
    reply(to, {"reason": error.reason, "message": error.message, "field": error.field})
    return status_of(error.code)


def options_bytes(options: Optional[Any]) -> bytes:
    return dump(options) if options else b""
