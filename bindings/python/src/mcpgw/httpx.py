"""An httpx transport that ends in a gateway of this process: any client that takes an httpx.AsyncClient needs no port.

    client = httpx.AsyncClient(transport=mcpgw.httpx.GatewayTransport(gateway), base_url="http://gateway")
"""

from __future__ import annotations

from typing import AsyncIterator

import httpx

from .aio import AsyncGateway, AsyncStreamedResponse
from .gateway import Gateway


class _Body(httpx.AsyncByteStream):
    def __init__(self, answer: AsyncStreamedResponse) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._answer:
            yield piece

    async def aclose(self) -> None:
        await self._answer.close()


class GatewayTransport(httpx.AsyncBaseTransport):
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = AsyncGateway(gateway)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        answer = await self._gateway.stream(
            request.method,
            request.url.raw_path.decode("ascii"),
            headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw],
            body=body,
        )
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer))
