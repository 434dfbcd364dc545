"""The Python SDK's client, 2.x: client2.py URL TOKEN MODE. Does one of everything and prints what came of it as JSON."""
import asyncio
import json
import sys

import httpx2
from mcp import Client, MCPError, types
from mcp.client.streamable_http import streamable_http_client

url, token, mode = sys.argv[1:4]
seen = {"progress": [], "asked": []}


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


async def progress(value, total, message):
    seen["progress"].append(value)


async def main():
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60) as http:
        async with Client(streamable_http_client(url, http_client=http), mode=mode, sampling_callback=sample,
                          elicitation_callback=elicit, list_roots_callback=roots) as client:
            seen["revision"] = client.protocol_version
            seen["tools"] = [tool.name for tool in (await client.list_tools()).tools]
            seen["echo"] = (await client.call_tool("echo", {"message": "größe 😀"})).content[0].text
            resource = (await client.list_resources()).resources[0]
            seen["resource"] = [str(resource.uri), str((await client.read_resource(str(resource.uri))).contents[0].uri)]
            seen["prompts"] = [prompt.name for prompt in (await client.list_prompts()).prompts]
            seen["prompt"] = (await client.get_prompt("args-prompt", {"city": "Riga"})).messages[0].content.text
            await client.call_tool("trigger-long-running-operation", {"duration": 1, "steps": 4}, progress_callback=progress)
            seen["sampled"] = (await client.call_tool("trigger-sampling-request", {"prompt": "why", "maxTokens": 5})).content[0].text
            seen["elicited"] = json.dumps([part.text for part in (await client.call_tool("trigger-elicitation-request", {})).content])
            seen["roots"] = (await client.call_tool("get-roots-list", {})).content[0].text
            try:
                await client.read_resource("demo://nothing")
            except MCPError as error:
                seen["missing"] = error.error.code
    print(json.dumps(seen))


asyncio.run(main())
