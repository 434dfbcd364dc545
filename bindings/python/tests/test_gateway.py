"""Gateway: options, requests, streams, servers, log, end."""

import asyncio
import gc
import json
import subprocess
import sys
import urllib.request

import mcpgw
import pytest
from conftest import SECRETS


def test_options_are_checked():
    for options, reason in (
        ({"nothing": 1}, "unknown_option"),
        ({"jwt": {"secret": "hush"}}, "invalid_option"),
        ({"session": {"timeout": "soon"}}, "invalid_option"),
    ):
        with pytest.raises(mcpgw.Error) as refused:
            mcpgw.Gateway(options)
        assert refused.value.code == "invalid_argument" and refused.value.reason == reason
        assert "hush" not in str(refused.value)


def test_requests():
    with mcpgw.Gateway(SECRETS) as gateway:
        answer = gateway.handle("GET", "/version")
        assert answer.status == 200 and answer.json()["version"] == mcpgw.__version__
        assert answer.header("content-type").startswith("application/json")
        assert gateway.handle("POST", "/mcp", body="{}").status == 401
        with pytest.raises(mcpgw.ApiError) as refused:
            gateway.admin("GET", "/api/targets/00000000-0000-4000-8000-000000000000")
        assert refused.value.status == 404
        with pytest.raises(mcpgw.Error) as refused:
            gateway.admin("POST", "/mcp")
        assert refused.value.reason == "invalid_target"


def test_a_closed_gateway_says_so():
    gateway = mcpgw.Gateway()
    repository = gateway.repository
    gateway.close()
    gateway.close()
    with pytest.raises(mcpgw.Error) as refused:
        gateway.handle("GET", "/version")
    assert refused.value.reason == "closed"
    with pytest.raises(mcpgw.ApiError) as refused:
        repository.admin("GET", "/api/users")
    assert refused.value.status == 503


def test_listening():
    with mcpgw.Gateway(SECRETS) as gateway:
        with gateway.serve() as server:
            assert server.port > 0 and server.url.endswith(str(server.port))
            with urllib.request.urlopen(server.url + "/version", timeout=30) as answer:
                assert json.load(answer)["version"] == mcpgw.__version__
            with pytest.raises(mcpgw.Error) as refused:
                gateway.serve({"server": {"port": server.port}})
            assert refused.value.reason == "address_in_use"
        with pytest.raises(OSError):
            urllib.request.urlopen(server.url + "/version", timeout=30)


def session_headers(gw, name):
    user = gw.as_user(name)
    user.list_tools()
    return {"Authorization": f"Bearer {user.token}", "Accept": "text/event-stream", "Mcp-Session-Id": user.session_id}


def test_streams(gw, calculator):
    with gw.stream("GET", "/mcp", headers=session_headers(gw, "alice")) as stream:
        assert stream.status == 200 and stream.header("Content-Type") == "text/event-stream"
        gw.deny("alice", "calculator", "^add$")  # her list of tools changes
        text = b""
        for piece in stream:
            text += piece
            if b"notifications/tools/list_changed" in text:
                break
        assert stream.complete is None
    list(stream)
    assert stream.complete is False
    with gw.stream("GET", "/version") as whole:
        assert b"version" in b"".join(whole)
    assert whole.complete is True


def test_log_lines():
    lines = []
    with mcpgw.testing.gateway({"logging": {"level": "debug"}}, log=lines.append) as gw:
        gw.server("s").add_tool("t", lambda arguments: "x")
        gw.allow("alice")
        assert gw.as_user("alice").call_tool("t").ok
    assert lines and {"level", "module", "message", "fields"} <= set(lines[0])
    assert "a password of tests" not in json.dumps(lines)


def test_connect_decides_and_may_fail():
    server = mcpgw.Server("any")
    server.add_tool("t", lambda arguments: "x")
    asked = []

    def connect(parameters):
        asked.append(parameters["target"]["name"])
        if parameters["target"]["name"] == "bad":
            raise RuntimeError("a secret text")
        return server if parameters["target"]["name"] == "mine" else None

    with mcpgw.testing.gateway(connect=connect) as gw:
        for name in ("mine", "bad", "other"):
            gw.admin(
                "POST",
                "/api/targets",
                {"name": name, "transport_type": "streamable-http", "url": "http://127.0.0.1:1/mcp"},
            )
        gw.allow("alice")
        assert gw.as_user("alice").list_tools() == ["mine_t"]
        assert set(asked) >= {"mine", "bad", "other"}


def test_asyncio(gw, calculator):
    async def main():
        gateway = mcpgw.AsyncGateway(gw)
        answer = await gateway.handle("GET", "/version")
        assert answer.json()["version"] == mcpgw.__version__
        assert (await gateway.admin("GET", "/api/users"))
        # Many waiting answers need no thread each.
        answers = await asyncio.gather(*(gateway.handle("GET", "/version") for _ in range(100)))
        assert {a.status for a in answers} == {200}
        async with await gateway.stream("GET", "/mcp", headers=session_headers(gw, "alice")) as stream:
            assert stream.status == 200
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(stream.read(), 0.05)
        async with await mcpgw.AsyncGateway.create(SECRETS) as other:
            assert (await other.handle("GET", "/health")).status == 200

    asyncio.run(main())


def test_nothing_is_left_behind():
    """A gateway that is dropped ends; a process whose gateways are open ends in order."""
    gateway = mcpgw.Gateway(SECRETS)
    del gateway
    gc.collect()
    program = """
import mcpgw
gateway = mcpgw.testing.TestGateway(log=lambda line: None)
gateway.server("s").add_tool("t", lambda arguments: "x")
gateway.allow("alice")
assert gateway.as_user("alice").call_tool("t").ok
server = gateway.serve()
print("done")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")
