"""A server of the Python SDK's FastMCP: fastmcp_server.py stdio|sse|streamable-http [stateless], on a port chosen by the
system. A stateless one has no sessions and answers with JSON alone."""
import asyncio
import sys

from mcp.server.fastmcp import Context, FastMCP
from mcp.types import SamplingMessage, TextContent
from pydantic import BaseModel

stateless = sys.argv[2:] == ["stateless"]
server = FastMCP("fastmcp-peer", instructions="A server for tests.", host="127.0.0.1", port=0,
                 stateless_http=stateless, json_response=stateless)


class Sum(BaseModel):
    total: int


class Answer(BaseModel):
    colour: str


@server.tool()
def add(a: int, b: int) -> Sum:
    """Adds two numbers."""
    return Sum(total=a + b)


@server.tool()
async def count(steps: int, ctx: Context) -> str:
    """Counts, and tells how far it is."""
    for step in range(1, steps + 1):
        await ctx.report_progress(step, steps, f"step {step}")
        await ctx.info(f"step {step}")
    return f"counted to {steps}"


@server.tool()
async def wait(ctx: Context) -> str:
    """Tells that it has begun, and ends only when it is cancelled."""
    await ctx.report_progress(1)
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        print("wait was cancelled", file=sys.stderr, flush=True)
        raise
    return "nobody cancelled"


@server.tool()
async def colour(ctx: Context) -> str:
    """Asks the user."""
    answer = await ctx.elicit("Which colour?", Answer)
    return f"{answer.action} {answer.data.colour if answer.action == 'accept' else ''}"


@server.tool()
async def think(question: str, ctx: Context) -> str:
    """Asks the client's model."""
    message = SamplingMessage(role="user", content=TextContent(type="text", text=question))
    return (await ctx.session.create_message([message], max_tokens=10)).content.text


@server.tool()
def fail() -> str:
    """Fails."""
    raise ValueError("as it was told to")


@server.resource("note://hello")
def note() -> str:
    """A note."""
    return "a note"


@server.resource("note://{name}/text")
def named(name: str) -> str:
    """A note by name."""
    return f"a note about {name}"


@server.prompt()
def greet(name: str) -> str:
    """Greets."""
    return f"Please greet {name}."


server.run(transport=sys.argv[1])
