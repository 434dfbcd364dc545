"""The Python SDK's client, 1.x: client1.py URL TOKEN [sse]. Does one of everything and prints what came of it as JSON."""
import asyncio
import json
import sys

import httpx
from mcp import ClientSession, types
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import McpError

url, token = sys.argv[1], sys.argv[2]
headers = {"Authorization": f"Bearer {token}"}
seen = {"progress": [], "asked": [], "logged": 0}


async def sample(context, params):
    seen["asked"].append("sampling/createMessage")
    return types.CreateMessageResult(
        role="assistant", model="test", content=types.TextContent(type="text", text="a sampled answer"))


async def elicit(context, params):
    seen["asked"].append("elicitation/create")
    return types.ElicitResult(action="decline")


async def roots(context):
    seen["asked"].append("roots/list")
    return types.ListRootsResult(roots=[types.Root(uri="file:///srv/project", name="project")])


async def log(params):
    seen["logged"] += 1


async def progress(value, total, message):
    seen["progress"].append(value)


async def use(read, write):
    async with ClientSession(read, write, sampling_callback=sample, elicitation_callback=elicit,
                             list_roots_callback=roots, logging_callback=log) as session:
        seen["revision"] = (await session.initialize()).protocolVersion
        seen["tools"] = [tool.name for tool in (await session.list_tools()).tools]
        seen["echo"] = (await session.call_tool("echo", {"message": "größe 😀"})).content[0].text
        resource = (await session.list_resources()).resources[0]
        seen["resource"] = [str(resource.uri), str((await session.read_resource(resource.uri)).contents[0].uri)]
        seen["prompts"] = [prompt.name for prompt in (await session.list_prompts()).prompts]
        seen["prompt"] = (await session.get_prompt("args-prompt", {"city": "Riga"})).messages[0].content.text
        await session.call_tool("trigger-long-running-operation", {"duration": 1, "steps": 4}, progress_callback=progress)
        seen["sampled"] = (await session.call_tool("trigger-sampling-request", {"prompt": "why", "maxTokens": 5})).content[0].text
        seen["elicited"] = json.dumps([part.text for part in (await session.call_tool("trigger-elicitation-request", {})).content])
        seen["roots"] = (await session.call_tool("get-roots-list", {})).content[0].text
        await session.set_logging_level("debug")
        await session.send_ping()
        try:
            await session.read_resource("demo://nothing")
        except McpError as error:
            seen["missing"] = error.error.code


async def main():
    if sys.argv[3:] == ["sse"]:
        async with sse_client(url, headers=headers) as (read, write):
            await use(read, write)
    else:
        async with httpx.AsyncClient(headers=headers, timeout=60) as client:
            async with streamable_http_client(url, http_client=client) as (read, write, _):
                await use(read, write)
    print(json.dumps(seen))


asyncio.run(main())
