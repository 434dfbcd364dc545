"""The same for asyncio: calls that wait run on threads, answers come to the loop piece by piece."""

from __future__ import annotations

import asyncio
from typing import Any, AsyncIterator, Mapping, Optional, Union

from ._native import lib
from .gateway import Gateway, HttpServer
from .http import Headers, HeadersLike, Receiver, Request, Response, begin
from .policy import Decision, PolicyEngine


class AsyncStreamedResponse(Receiver):
    """An answer that is read while it comes; leaving ``async with`` tells the gateway that its client has gone."""

    status: int
    headers: Headers
    complete: Optional[bool] = None

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pieces: "asyncio.Queue[Any]" = asyncio.Queue()
        self._call: Any = None

    async def _started(self, call: Any) -> "AsyncStreamedResponse":
        self._call = call
        try:
            self.status, self.headers = await self._pieces.get()
        except asyncio.CancelledError:
            await self.close()
            raise
        return self

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (piece := await self._pieces.get()) is not None:
            yield piece

    async def read(self) -> bytes:
        return b"".join([piece async for piece in self])

    async def close(self) -> None:
        lib.mcpgw_call_cancel(self._call)

    async def __aenter__(self) -> "AsyncStreamedResponse":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _put(self, piece: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)
        except RuntimeError:  # the loop has ended, and with it whoever waited
            pass

    def on_head(self, status: int, headers: Headers, streamed: bool) -> None:
        self._put((status, headers))

    def on_data(self, data: bytes) -> None:
        self._put(data)

    def on_end(self, complete: bool) -> None:
        self.complete = complete
        self._put(None)


class AsyncGateway:
    """A Gateway for coroutines. ``gateway`` is the one that it stands on."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    @classmethod
    async def create(cls, options: Optional[Mapping[str, Any]] = None, **parts: Any) -> "AsyncGateway":
        return cls(await asyncio.to_thread(lambda: Gateway(options, **parts)))

    async def stream(
        self, method: str, target: str, *, headers: HeadersLike = (), body: Union[bytes, str] = b"",
        remote_address: str = "127.0.0.1",
    ) -> AsyncStreamedResponse:  # fmt: skip
        response = AsyncStreamedResponse()
        request = Request(method, target, headers, body, remote_address)
        return await response._started(begin(self.gateway.handle_, request, response))

    async def handle(
        self, method: str, target: str, *, headers: HeadersLike = (), body: Union[bytes, str] = b"",
        remote_address: str = "127.0.0.1", timeout: float = 120.0,
    ) -> Response:  # fmt: skip
        """No thread waits for it; cancelling the task cancels the call."""

        async def whole() -> Response:
            async with await self.stream(
                method, target, headers=headers, body=body, remote_address=remote_address
            ) as answer:
                return Response(answer.status, answer.headers, await answer.read())

        return await asyncio.wait_for(whole(), timeout)

    async def admin(self, method: str, target: str, body: Optional[Any] = None, *, user_id: str = "") -> Any:
        return await asyncio.to_thread(self.gateway.admin, method, target, body, user_id=user_id)

    async def serve(self, options: Optional[Mapping[str, Any]] = None) -> HttpServer:
        return await asyncio.to_thread(self.gateway.serve, options)

    async def close(self, grace: float = 5.0) -> None:
        await asyncio.to_thread(self.gateway.close, grace)

    async def __aenter__(self) -> "AsyncGateway":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def evaluate(engine: PolicyEngine, **question: Any) -> Decision:
    """PolicyEngine.evaluate reads memory only: it needs no thread."""
    return engine.evaluate(**question)
