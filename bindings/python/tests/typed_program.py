"""What a typed program writes: mypy must accept it, and refuse what is marked (an ignore that is not needed is an error)."""

from typing import Dict, List, Optional, Sequence

import mcpgw
from mcpgw.httpx import GatewayTransport
from mcpgw.testing import TestGateway


class Mine(mcpgw.Storage):
    def get(self, collection: str, key: str) -> Optional[mcpgw.Record]:
        return mcpgw.Record(collection, key, "{}", 1)

    def list(self, collection: str, prefix: str, after: str, limit: int) -> Sequence[mcpgw.Record]:
        return []

    def commit(self, operations: Sequence[mcpgw.Operation]) -> Sequence[Optional[int]]:
        return [0 if step.op == "check" else None for step in operations]


def program() -> str:
    server = mcpgw.Server("s")

    @server.tool
    def add(a: int, b: int = 1) -> int:
        return a + b

    total: int = add(1)  # a tool stays the function that it is
    options = {"encryption": {"key": "..."}}
    with mcpgw.Gateway(options, storage=Mine(), servers={"s": server}, log=lambda line: print(line["message"])) as gateway:
        decision = mcpgw.PolicyEngine(gateway).evaluate(user="alice", target="s", name="add")
        dev = mcpgw.Principal(groups=["dev"])
        mcpgw.PolicyEngine(gateway.repository).evaluate(principal=dev, target="s", name="add", type="prompt")
        found = mcpgw.TokenResolver(gateway).resolve(user="a", target="s")
        found.value  # type: ignore[union-attr]  # there may be none
        values: Dict[str, str] = mcpgw.EnvResolver(gateway).resolve(user="a", target="s").values
        with gateway.serve({"server": {"port": 0}}) as listening:
            url: str = listening.url
        GatewayTransport(gateway)
    mcpgw.Gateway("options")  # type: ignore[arg-type]
    mcpgw.Storage()  # type: ignore[abstract]
    return f"{total} {decision.allowed} {values} {url}"


def test_it(mcpgw_gateway: TestGateway) -> None:
    git = mcpgw_gateway.server("git")
    git.add_tool("t", lambda arguments: arguments["a"])
    reply = mcpgw_gateway.as_user("alice", role="auditor", groups=["dev"]).call_tool("t", a=1)
    text: str = reply.text
    rows: List[Dict[str, object]] = mcpgw_gateway.audit_rows(target="git")
    assert text and rows
