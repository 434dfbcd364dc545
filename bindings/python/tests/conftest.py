import mcpgw
import pytest

SECRETS = {"jwt": {"secret": "0123456789abcdef0123456789abcdef"}, "encryption": {"key": "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"}}


@pytest.fixture
def gw():
    with mcpgw.testing.gateway() as made:
        yield made


@pytest.fixture
def calculator(gw):
    server = gw.server("calculator")

    @server.tool
    def add(a: int, b: int = 1) -> int:
        """The sum."""
        return a + b

    @server.tool
    def fail() -> str:
        raise mcpgw.ToolError("out of numbers")

    @server.tool
    def crash() -> str:
        raise RuntimeError("a secret text")

    gw.allow("alice", "calculator")
    return server
