"""The official SDK's client, over a port and without one."""

import asyncio

import httpx
import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from mcp.shared.exceptions import McpError
from mcpgw.httpx import GatewayTransport


def in_process(gw):
    def factory(headers=None, timeout=None, auth=None):
        return httpx.AsyncClient(transport=GatewayTransport(gw), headers=headers, timeout=timeout, auth=auth)

    return factory


async def talk(url, token, **how):
    async with streamablehttp_client(url, headers={"Authorization": f"Bearer {token}"}, **how) as (read, write, _):
        async with ClientSession(read, write) as session:
            await session.initialize()
            tools = [tool.name for tool in (await session.list_tools()).tools]
            sums = await asyncio.gather(*(session.call_tool("add", {"a": n, "b": 1}) for n in range(10)))
            with pytest.raises(McpError):
                await session.call_tool("nothing", {})
            failed = await session.call_tool("fail", {})
            return tools, [s.content[0].text for s in sums], failed.isError


EXPECTED = (["add", "fail", "crash"], [str(n + 1) for n in range(10)], True)


def test_without_a_port(gw, calculator):
    token = gw.as_user("alice").token
    assert asyncio.run(talk("http://localhost/mcp", token, httpx_client_factory=in_process(gw))) == EXPECTED


def test_over_a_port(gw, calculator):
    with gw.serve() as server:
        assert asyncio.run(talk(server.url + "/mcp", gw.as_user("alice").token)) == EXPECTED


def test_two_clients_without_a_port(gw, calculator):
    gw.allow("bob", "calculator")

    async def both():
        return await asyncio.gather(
            *(
                talk("http://localhost/mcp", gw.as_user(name).token, httpx_client_factory=in_process(gw))
                for name in ("alice", "bob")
            )
        )

    assert asyncio.run(both()) == [EXPECTED, EXPECTED]
