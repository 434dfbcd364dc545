"""A test, in pytest, of something that talks to MCP servers: the gateway is in the same process, and no port is opened.

    pip install ./bindings/python pytest
    pytest examples/with_pytest
"""

import pytest


def release_notes(user):
    """What is tested: a text from what the server named "git" says to this user."""
    log = user.call_tool("git_log", path=".")
    return f"New: {log.text}" if log.ok else "Nothing to tell"


@pytest.fixture
def git(mcpgw_gateway):  # the fixture comes with the package
    server = mcpgw_gateway.server("git")

    @server.tool
    def git_log(path: str) -> str:
        return f"all commits in {path}"

    @server.tool
    def git_push() -> str:
        return "done"

    mcpgw_gateway.allow("alice", "git", "^git_log$")
    return server


def test_whoever_may_read_the_log_gets_notes(git, mcpgw_gateway):
    assert release_notes(mcpgw_gateway.as_user("alice")) == "New: all commits in ."
    assert [call["arguments"] for call in git.received_calls("git_log")] == [{"path": "."}]


def test_others_get_none_and_the_server_hears_nothing_of_it(git, mcpgw_gateway):
    assert release_notes(mcpgw_gateway.as_user("bob")) == "Nothing to tell"
    assert not mcpgw_gateway.as_user("alice").call_tool("git_push").ok
    assert git.received_calls() == []
    rows = [row for row in mcpgw_gateway.audit_rows() if row["method"] == "tools/call"]
    assert [row["response_status"] < 400 for row in rows] == [False, False]
